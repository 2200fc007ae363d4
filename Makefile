# Everything a newcomer needs: make demo, make test. Details: README.md.
# The stamp files make a second call skip the installation.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
PYTEST_ARGS ?=
# Most of the suite's time is daemons waiting for each other: two at once fit two cores.
TEST_JOBS ?= 2

# What make campaign plays, on how many processes, and where it goes on and writes.
SEEDS ?= 1-10000
JOBS ?= 2
CAMPAIGN ?= build/campaign

OLD ?= HEAD~1

.PHONY: bench bench-full campaign clean deb deb-test demo docs downloads-bench downloads-campaign fuzz help home-campaign lint mail-campaign man mixed partition publisher-campaign screenshots task-campaign test tracking-campaign

help:
	@echo "make demo [ARGS='--nodes 13 --seconds 20']   run a real federation on this machine"
	@echo "make test                                    run the whole suite"
	@echo "make campaign SEEDS=1-10000 [JOBS=2]         random histories and a million mutants; goes on where it was stopped"
	@echo "make task-campaign                           10,000 tasks under 50 kill -9, a full disk, wrong files, a flood of 100,000"
	@echo "make publisher-campaign                      the real esgcet, two releases of it from PyPI, through the index proxy"
	@echo "make home-campaign [ARGS='--seeds 1-200']    users told once whatever goes down: five nodes in virtual time"
	@echo "make mail-campaign                           3,000 mails under 41 kill -9, an outage, 10,000 users told of everything six times"
	@echo "make tracking-campaign [ARGS='--only kill']  real daemons: who is told, how often, what leaves a node; half an hour, as root"
	@echo "make downloads-campaign                      100,000 downloads by 16 writers that commit in any order, the reader killed 30 times"
	@echo "make downloads-bench                         5,000,000 downloads in both stores: reading them, matching changes; half an hour"
	@echo "make bench                                   measure 7 and 25 nodes, with serf beside them: at most ten minutes"
	@echo "make bench-full                              the whole table, up to 50 nodes: hours; goes on where it was stopped"
	@echo "make screenshots                             the pictures of README and docs, by the tests of the dashboard"
	@echo "make deb                                     the Debian package, into build/"
	@echo "make deb-test                                install, run, upgrade, remove and purge it on a clean Debian; as root"
	@echo "make mixed OLD=commit                        a federation of two versions, both ways round, then upgraded"
	@echo "make partition                               13 nodes cut in two by nft, a conflict, one merge; as root"
	@echo "make man                                     the man pages of all commands, into build/man"
	@echo "make lint | docs | fuzz                      checks, document checks, 100,000 hostile inputs"

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ..." >&2; exit 2; }
	$(PYTHON) -m venv "$(VENV)"

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -e .
	@touch "$@"

$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/python
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch "$@" "$(VENV)/.installed"

demo: $(VENV)/.installed
	@"$(BIN)/esgf-gossip" demo $(ARGS)

test: $(VENV)/.installed-test
	"$(BIN)/python" -m pytest -n $(TEST_JOBS) --dist loadfile $(PYTEST_ARGS)

lint: $(VENV)/.installed-test
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/mypy"

fuzz: $(VENV)/.installed-test
	HOSTILE_EXAMPLES=100000 "$(BIN)/python" -m pytest -q tests/property/test_hostile_bytes.py

bench: $(VENV)/.installed-test
	"$(BIN)/python" benchmarks/run.py $(ARGS)

bench-full: $(VENV)/.installed-test
	"$(BIN)/python" benchmarks/run.py --full $(ARGS)

campaign: $(VENV)/.installed-test
	@mkdir -p "$(CAMPAIGN)"
	"$(BIN)/python" -m esgf_gossip.sim schedules $(SEEDS) --jobs $(JOBS) --state "$(CAMPAIGN)/schedules.jsonl" --results "$(CAMPAIGN)/results.json"
	"$(BIN)/python" benchmarks/mutations.py --jobs $(JOBS) --state "$(CAMPAIGN)/mutations.jsonl" --results "$(CAMPAIGN)/results.json" $(ARGS)

mixed: $(VENV)/.installed-test
	"$(BIN)/python" benchmarks/mixed_versions.py --old "$(OLD)" $(ARGS)

partition: $(VENV)/.installed-test
	"$(BIN)/python" benchmarks/partition.py $(ARGS)

man: $(VENV)/.installed-test
	"$(BIN)/python" packaging/man_pages.py build/man

deb: $(VENV)/.installed-test
	"$(BIN)/python" packaging/deb/build.py $(ARGS)

deb-test: $(VENV)/.installed-test
	package="$$("$(BIN)/python" packaging/deb/build.py $(ARGS))" && packaging/deb/check "$$package"

task-campaign: $(VENV)/.installed-test
	@mkdir -p "$(CAMPAIGN)"
	"$(BIN)/python" benchmarks/task_campaign.py --results "$(CAMPAIGN)/tasks.jsonl" $(ARGS)

publisher-campaign: $(VENV)/.installed-test
	@mkdir -p "$(CAMPAIGN)"
	"$(BIN)/python" benchmarks/publisher_campaign.py --results "$(CAMPAIGN)/publisher.jsonl" $(ARGS)
home-campaign: $(VENV)/.installed-test
	"$(BIN)/python" benchmarks/home_campaign.py $(ARGS)
mail-campaign: $(VENV)/.installed-test
	@mkdir -p "$(CAMPAIGN)"
	"$(BIN)/python" benchmarks/mail_campaign.py --results "$(CAMPAIGN)/mails.jsonl" $(ARGS)
tracking-campaign: $(VENV)/.installed-test
	@mkdir -p "$(CAMPAIGN)"
	"$(BIN)/python" benchmarks/tracking_campaign.py --results "$(CAMPAIGN)/tracking.jsonl" $(ARGS)

downloads-campaign: $(VENV)/.installed-test
	PYTHONPATH=tests "$(BIN)/python" benchmarks/download_campaign.py $(ARGS)

downloads-bench: $(VENV)/.installed-test
	PYTHONPATH=tests "$(BIN)/python" benchmarks/downloads.py $(ARGS)

docs: $(VENV)/.installed-test
	"$(BIN)/python" -m pytest -q tests/unit/test_documents.py

screenshots: $(VENV)/.installed-test
	SCREENSHOTS=build/screenshots "$(BIN)/python" -m pytest -q tests/e2e/test_dashboard.py -k pictures
	@mkdir -p docs/images
	cp build/screenshots/federation-light.png build/screenshots/federation-dark.png build/screenshots/federation-phone.png build/screenshots/node-light.png docs/images/

clean:
	rm -rf "$(VENV)" build dist
