"""
Tell Twisted that ``twist esgf-gossip`` exists.

Inert: it imports nothing of ours until the command is chosen, and neither this
module nor its variable may ever be renamed (docs/adr/0002-plugin-layout.md).
"""

from twisted.application.service import ServiceMaker

esgf_gossip = ServiceMaker(
    "esgf-gossip",
    "esgf_gossip.tap",
    "The federation daemon of an ESGF node.",
    "esgf-gossip",
)
