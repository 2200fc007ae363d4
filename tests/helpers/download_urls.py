"""URLs of downloads as data nodes serve and log them, and what each of them is; None: that cannot be told from it."""

from __future__ import annotations

import itertools
from typing import Final

# A line: the URL's form, the dataset version, the file. Hosts, roots and folders as sites have them.
KNOWN: Final = (
    # CMIP6: many roots, one order of folders.
    ("http://esgf-data.ucar.edu/thredds/fileServer/esg_dataroot/CMIP6/CMIP/NCAR/CESM2-WACCM/historical/r2i1p1f1/day/tas/gn/v20190227/",
     "CMIP6.CMIP.NCAR.CESM2-WACCM.historical.r2i1p1f1.day.tas.gn.v20190227", "tas_day_CESM2-WACCM_historical_r2i1p1f1_gn_18500101-18591231.nc"),
    ("https://aims3.llnl.gov/thredds/fileServer/css03_data/CMIP6/ScenarioMIP/MIROC/MIROC6/ssp585/r1i1p1f1/Amon/pr/gn/v20190627/",
     "CMIP6.ScenarioMIP.MIROC.MIROC6.ssp585.r1i1p1f1.Amon.pr.gn.v20190627", "pr_Amon_MIROC6_ssp585_r1i1p1f1_gn_201501-210012.nc"),
    ("http://esgf3.dkrz.de/thredds/fileServer/cmip6/RFMIP/AER/RRTMG-SW-4-02/rad-irf/r1i1p1f1/Efx/rsd/gn/v20200110/",
     "CMIP6.RFMIP.AER.RRTMG-SW-4-02.rad-irf.r1i1p1f1.Efx.rsd.gn.v20200110", "rsd_Efx_RRTMG-SW-4-02_rad-irf_r1i1p1f1_gn.nc"),
    ("http://esg-dn2.nsc.liu.se/thredds/fileServer/esg_dataroot1/cmip6data/CMIP6/ScenarioMIP/EC-Earth-Consortium/EC-Earth3-Veg/ssp370/r1i1p1f1/Amon/tas/gr/v20200225/",
     "CMIP6.ScenarioMIP.EC-Earth-Consortium.EC-Earth3-Veg.ssp370.r1i1p1f1.Amon.tas.gr.v20200225", "tas_Amon_EC-Earth3-Veg_ssp370_r1i1p1f1_gr_201501-201512.nc"),
    ("http://noresg.nird.sigma2.no/thredds/fileServer/esg_dataroot/cmor/CMIP6/ScenarioMIP/NCC/NorESM2-MM/ssp585/r1i1p1f1/Oyr/ph/gr/v20230616/",
     "CMIP6.ScenarioMIP.NCC.NorESM2-MM.ssp585.r1i1p1f1.Oyr.ph.gr.v20230616", "ph_Oyr_NorESM2-MM_ssp585_r1i1p1f1_gr_2021-2030.nc"),
    ("http://esgdata.gfdl.noaa.gov/thredds/fileServer/gfdl_dataroot4/CMIP/NOAA-GFDL/GFDL-ESM4/historical/r1i1p1f1/Omon/tos/gn/v20190726/",
     "CMIP6.CMIP.NOAA-GFDL.GFDL-ESM4.historical.r1i1p1f1.Omon.tos.gn.v20190726", "tos_Omon_GFDL-ESM4_historical_r1i1p1f1_gn_199001-200912.nc"),
    ("https://dap.ceda.ac.uk/badc/cmip6/data/CMIP6/DCPP/MOHC/HadGEM3-GC31-MM/dcppA-hindcast/s1960-r10i1p1f2/day/huss/gn/v20200417/",
     "CMIP6.DCPP.MOHC.HadGEM3-GC31-MM.dcppA-hindcast.s1960-r10i1p1f2.day.huss.gn.v20200417", "huss_day_HadGEM3-GC31-MM_dcppA-hindcast_s1960-r10i1p1f2_gn_19601101-19601230.nc"),
    ("https://esgf-node.example.org/thredds/fileServer/CMIP6/VolMIP/NASA-GISS/GISS-E2-1-G/volc-pinatubo-full/r6i10p1f1/Amon/zg/gn/v20190903/",
     "CMIP6.VolMIP.NASA-GISS.GISS-E2-1-G.volc-pinatubo-full.r6i10p1f1.Amon.zg.gn.v20190903", "zg_Amon_GISS-E2-1-G_volc-pinatubo-full_r6i10p1f1_gn_185001-185212.nc"),
    ("globus:415a6320-e49c-11e5-9798-22000b9da45e/css03_data/CMIP6/CMIP/BCC/BCC-ESM1/historical/r1i1p1f1/Amon/ta/gn/v20181214/",
     "CMIP6.CMIP.BCC.BCC-ESM1.historical.r1i1p1f1.Amon.ta.gn.v20181214", "ta_Amon_BCC-ESM1_historical_r1i1p1f1_gn_185001-201412.nc"),
    ("https://g-52ba3.fd635.8443.data.globus.org/css03_data/CMIP6/CMIP/CAS/FGOALS-g3/piControl/r1i1p1f1/Lmon/mrso/gn/v20191202/",
     "CMIP6.CMIP.CAS.FGOALS-g3.piControl.r1i1p1f1.Lmon.mrso.gn.v20191202", "mrso_Lmon_FGOALS-g3_piControl_r1i1p1f1_gn_020001-020912.nc"),
    ("s3://esgf-world/CMIP6/CMIP/AS-RCEC/TaiESM1/1pctCO2/r1i1p1f1/Amon/hfls/gn/v20200225/",
     "CMIP6.CMIP.AS-RCEC.TaiESM1.1pctCO2.r1i1p1f1.Amon.hfls.gn.v20200225", "hfls_Amon_TaiESM1_1pctCO2_r1i1p1f1_gn_000102-015012.nc"),
    ("https://esgf-world.s3.amazonaws.com/CMIP6/CMIP/AS-RCEC/TaiESM1/1pctCO2/r1i1p1f1/Amon/hfss/gn/v20200225/",
     "CMIP6.CMIP.AS-RCEC.TaiESM1.1pctCO2.r1i1p1f1.Amon.hfss.gn.v20200225", "hfss_Amon_TaiESM1_1pctCO2_r1i1p1f1_gn_000102-015012.nc"),
    ("https://data.example.org/thredds/fileServer/root/CMIP6Plus/CMIP/NCC/NorESM2-LM/hist-lu/r1i1p1f1/APmon/tas/gn/v20240101/",
     "CMIP6Plus.CMIP.NCC.NorESM2-LM.hist-lu.r1i1p1f1.APmon.tas.gn.v20240101", "tas_APmon_NorESM2-LM_hist-lu_r1i1p1f1_gn_185001-201412.nc"),
    # CMIP5: the variable stands below the version; the name of the dataset does not have it.
    ("http://esgf-data1.ceda.ac.uk/thredds/fileServer/esg_dataroot/cmip5/output1/MPI-M/MPI-ESM-LR/decadal2001/day/atmos/day/r10i1p1/v20111122/tas/",
     "cmip5.output1.MPI-M.MPI-ESM-LR.decadal2001.day.atmos.day.r10i1p1.v20111122", "tas_day_MPI-ESM-LR_decadal2001_r10i1p1_20020101-20111231.nc"),
    ("http://esgf1.dkrz.de/thredds/fileServer/cmip5/cmip5/output1/MOHC/HadGEM2-ES/rcp45/mon/atmos/Amon/r1i1p1/v20111128/tas/",
     "cmip5.output1.MOHC.HadGEM2-ES.rcp45.mon.atmos.Amon.r1i1p1.v20111128", "tas_Amon_HadGEM2-ES_rcp45_r1i1p1_200512-203011.nc"),
    ("http://esgf-data01.diasjp.net/thredds/fileServer/esg_dataroot/cmip5/output1/MIROC/MIROC-ESM/past1000/mon/atmos/Amon/r1i1p1/v20120710/pr/",
     "cmip5.output1.MIROC.MIROC-ESM.past1000.mon.atmos.Amon.r1i1p1.v20120710", "pr_Amon_MIROC-ESM_past1000_r1i1p1_085001-184912.nc"),
    ("https://dap.ceda.ac.uk/badc/cmip5/data/cmip5/output1/MOHC/HadGEM2-A/sstClim/day/atmos/day/r1i1p1/v20120101/pr/",
     "cmip5.output1.MOHC.HadGEM2-A.sstClim.day.atmos.day.r1i1p1.v20120101", "pr_day_HadGEM2-A_sstClim_r1i1p1_18591201-18791130.nc"),
    ("http://dapds00.nci.org.au/thredds/fileServer/rr3/CMIP5/output1/CSIRO-BOM/ACCESS1-0/historical/mon/ocean/Omon/r1i1p1/v2/tos/",
     "cmip5.output1.CSIRO-BOM.ACCESS1-0.historical.mon.ocean.Omon.r1i1p1.v2", "tos_Omon_ACCESS1-0_historical_r1i1p1_185001-200512.nc"),
    ("https://data.example.org/thredds/fileServer/cmip5/output2/IPSL/IPSL-CM5A-LR/rcp85/fx/atmos/fx/r0i0p0/v20110324/areacella/",
     "cmip5.output2.IPSL.IPSL-CM5A-LR.rcp85.fx.atmos.fx.r0i0p0.v20110324", "areacella_fx_IPSL-CM5A-LR_rcp85_r0i0p0.nc"),
    # CORDEX: the file has the institute before the model, folders have it or not, the dataset has not.
    ("http://esg-dn1.nsc.liu.se/thredds/fileServer/esg_dataroot1/cordexdata/cordex/output/EUR-11/SMHI/ICHEC-EC-EARTH/rcp85/r12i1p1/RCA4/v1/day/tas/v20131026/",
     "cordex.output.EUR-11.SMHI.ICHEC-EC-EARTH.rcp85.r12i1p1.RCA4.v1.day.tas.v20131026", "tas_EUR-11_ICHEC-EC-EARTH_rcp85_r12i1p1_SMHI-RCA4_v1_day_20060101-20101231.nc"),
    ("http://esgf1.dkrz.de/thredds/fileServer/cordex/cordex/output/EUR-11/KNMI/MOHC-HadGEM2-ES/historical/r1i1p1/KNMI-RACMO22E/v2/mon/tas/v20160620/",
     "cordex.output.EUR-11.KNMI.MOHC-HadGEM2-ES.historical.r1i1p1.RACMO22E.v2.mon.tas.v20160620", "tas_EUR-11_MOHC-HadGEM2-ES_historical_r1i1p1_KNMI-RACMO22E_v2_mon_195101-196012.nc"),
    ("https://data.example.org/thredds/fileServer/CORDEX/output/EUR-11/CLMcom-ETH/MPI-M-MPI-ESM-LR/historical/r1i1p1/CLMcom-ETH-COSMO-crCLIM-v1-1/v1/6hr/hus200/v20191219/",
     "cordex.output.EUR-11.CLMcom-ETH.MPI-M-MPI-ESM-LR.historical.r1i1p1.COSMO-crCLIM-v1-1.v1.6hr.hus200.v20191219",
     "hus200_EUR-11_MPI-M-MPI-ESM-LR_historical_r1i1p1_CLMcom-ETH-COSMO-crCLIM-v1-1_v1_6hr_1950010100-1950123118.nc"),
    ("https://data.example.org/thredds/fileServer/root/CORDEX-CMIP6/DD/EUR-12/CLMcom-Hereon/MPI-ESM1-2-HR/historical/r1i1p1f1/ICON-CLM-202407-1-1/v1-r1/day/tas/v20240920/",
     "CORDEX-CMIP6.DD.EUR-12.CLMcom-Hereon.MPI-ESM1-2-HR.historical.r1i1p1f1.ICON-CLM-202407-1-1.v1-r1.day.tas.v20240920",
     "tas_EUR-12_MPI-ESM1-2-HR_historical_r1i1p1f1_CLMcom-Hereon_ICON-CLM-202407-1-1_v1-r1_day_19500101-19501231.nc"),
    # Observations and forcings.
    ("https://esgf-data2.llnl.gov/thredds/fileServer/user_pub_work/obs4MIPs/CNES/AVISO-1-0/mon/zos/gn/v20210727/",
     "obs4MIPs.CNES.AVISO-1-0.mon.zos.gn.v20210727", "zos_mon_AVISO-1-0_PCMDI_gn_199301-201012.nc"),
    ("http://aims3.llnl.gov/thredds/fileServer/user_pub_work/input4MIPs/CMIP6/CMIP/UoM/UoM-CMIP-1-2-0/atmos/yr/mole-fraction-of-carbon-dioxide-in-air/gr1-GMNHSH/v20160830/",
     "input4MIPs.CMIP6.CMIP.UoM.UoM-CMIP-1-2-0.atmos.yr.mole-fraction-of-carbon-dioxide-in-air.gr1-GMNHSH.v20160830",
     "mole-fraction-of-carbon-dioxide-in-air_input4MIPs_GHGConcentrations_CMIP_UoM-CMIP-1-2-0_gr1-GMNHSH_0000-2014.nc"),
    ("https://data.example.org/thredds/fileServer/root/MIP-DRS7/CMIP7/CMIP/CCCma/CanESM5-1/piControl/r1i1p2f1/glb/mon/tas/tavg-h2m-hxy-u/g120/v20190429/",
     "MIP-DRS7.CMIP7.CMIP.CCCma.CanESM5-1.piControl.r1i1p2f1.glb.mon.tas.tavg-h2m-hxy-u.g120.v20190429",
     "tas_tavg-h2m-hxy-u_mon_glb_g120_CanESM5-1_piControl_r1i1p2f1_660101-670012.nc"),
)  # fmt: skip

_GOOD: Final = "/CMIP6/CMIP/NCAR/CESM2/historical/r1i1p1f1/Amon/tas/gn/v20190308/tas_Amon_CESM2_historical_r1i1p1f1_gn_185001-201412.nc"

UNKNOWN: Final = (
    # No version, or one that is not the dataset's.
    "http://esgf-data1.ceda.ac.uk/thredds/fileServer/esg_dataroot/cmip5/output1/MOHC/HadGEM2-ES/rcp45/mon/atmos/Amon/r1i1p1/latest/tas/tas_Amon_HadGEM2-ES_rcp45_r1i1p1_200512-203011.nc",
    "https://dap.ceda.ac.uk/badc/cmip5/data/cmip5/output1/MOHC/HadGEM2-ES/rcp45/mon/atmos/Amon/r1i1p1/files/tas_20111128/tas_Amon_HadGEM2-ES_rcp45_r1i1p1_200512-203011.nc",
    "http://pcmdi9.llnl.gov/thredds/fileServer/cmip5_data/cmip5/output1/INM/inmcm4/1pctCO2/day/atmos/day/r1i1p1/tas/1/tas_day_inmcm4_1pctCO2_r1i1p1_20900101-20991231.nc",
    f"https://data.example.org{_GOOD.replace('/v20190308', '')}",
    f"https://data.example.org{_GOOD.replace('v20190308', '20190308')}",
    # The project or its product is not among the folders.
    "http://esgdata.gfdl.noaa.gov/thredds/fileServer/gfdl_dataroot/NOAA-GFDL/GFDL-ESM2M/historical/3hr/atmos/3hr/r1i1p1/v20110601/uas/uas_3hr_GFDL-ESM2M_historical_r1i1p1_1861010100-1865123123.nc",
    f"https://data.example.org/thredds/fileServer/data{_GOOD.removeprefix('/CMIP6')}",
    # Observations of the first generation: their datasets have other facets than their folders.
    "http://esgf-data.jpl.nasa.gov/thredds/fileServer/esg_dataroot/obs4MIPs/observations/atmos/tro3Stderr/mon/grid/NASA-JPL/TES/v20110608/tro3Stderr_TES_L3_tbd_200507-200912.nc",
    # Copies published under another project.
    f"https://data.example.org/thredds/fileServer/c3s-cmip6{_GOOD}",
    "https://data.example.org/thredds/fileServer/c3s-cordex/output/EUR-11/IPSL/MOHC-HadGEM2-ES/rcp85/r1i1p1/IPSL-WRF381P/v1/day/tas/v20190212/tas_EUR-11_MOHC-HadGEM2-ES_rcp85_r1i1p1_IPSL-WRF381P_v1_day_20060101-20101231.nc",
    # The file says something else than its folders.
    f"https://data.example.org{_GOOD.replace('tas_Amon', 'pr_Amon')}",
    f"https://data.example.org{_GOOD.replace('_gn_', '_gr_')}",
    f"https://data.example.org{_GOOD.replace('_r1i1p1f1_', '_r2i1p1f1_')}",
    # No file, or one that only describes; no folders at all.
    f"https://data.example.org{_GOOD}.html",
    f"https://data.example.org/thredds/dodsC{_GOOD}.das",
    f"https://data.example.org{_GOOD.rpartition('/')[0]}/",
    "s3://cmip6-pds/CMIP6/CMIP/AS-RCEC/TaiESM1/1pctCO2/r1i1p1f1/Amon/hfls/gn/v20200225/.zmetadata",
    "https://crd-esgf-drc.ec.gc.ca/thredds/fileServer/tas_tavg-h2m-hxy-u_mon_glb_g120_CanESM5-1_piControl_r1i1p2f1_660101-670012.nc",
    # Hostile.
    f"https://data.example.org/x/..{_GOOD}",
    f"https://data.example.org{_GOOD.replace('/Amon', '/A%0amon')}",
    f"https://data.example.org{_GOOD.replace('NCAR', 'N.C')}",
    f"https://data.example.org{_GOOD.replace('NCAR', '%ff')}",
    f"ht!tp://{_GOOD}",
    "",
    "/",
    "http://",
    "x" * 5000,
)


def spelled(form: str, name: str) -> list[str]:
    """Return the ways in which one URL is logged."""
    whole = form + name
    ways = [
        whole,
        f"{whole}|application/netcdf|HTTPServer",
        f"{whole}?openid=x&token=%2F",
        f"{whole}#part",
        whole.replace("_", "%5F"),
    ]
    if whole.startswith("http"):
        ways += [
            whole.replace("http", "HTTP", 1),
            whole.replace(".org/", ".org:8443/"),
            whole.replace("://", "://user@"),
        ]
    if "/thredds/fileServer/" in whole:
        path = whole.partition("/thredds/fileServer/")[2]
        ways += [
            path,
            f"/{path}",
            whole.replace("fileServer", "dodsC"),
            whole.replace("fileServer", "dodsC") + ".dods?tas[0:1]",
            f"gsiftp://data.example.org:2811//{path}",
            whole.replace("fileServer/", "fileServer//"),
        ]
    return ways


TABLE: Final = tuple(
    itertools.chain.from_iterable(
        ((way, dataset, name) for way in spelled(form, name)) for form, dataset, name in KNOWN
    )
)
