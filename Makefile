# Wolke. `make help` lists what there is; docs/operate.md explains.
STATE ?= $(CURDIR)/.state
CONFIGURATION ?= release
override STATE := $(abspath $(STATE))
export STATE CONFIGURATION SWIFT

built = .build/$(CONFIGURATION)/osctl
# Stopping and looking work with what was built, whichever it was.
osctl = $(firstword $(wildcard $(built) .build/release/osctl .build/debug/osctl))
options = --state "$(STATE)" $(if $(PORT_OFFSET),--port-offset "$(PORT_OFFSET)")

.PHONY: help up upgrade down status demo format lint test test-nightly test-horizon tempest bench chaos simulate test-upgrade attack fuzz coverage clean-state guest-image debian-image build install

help: ## what you can do here
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  STATE=DIR              where the cloud lives (now $(STATE))"
	@echo "  PORT_OFFSET=N          added to every port, so that several clouds fit on one machine (default 0)"
	@echo "  DATAPATH=WORD          Open vSwitch's datapath: system, netdev or auto (default auto: the kernel's where it works)"
	@echo "  HOSTS=N                hypervisor hosts: this machine and N-1 simulated ones (default 1)"
	@echo "  CONFIGURATION=debug    build faster, run slower"
	@echo "  SWIFT=PATH             the Swift toolchain, where it is not found by itself"

install: ## the Debian packages for building and running, and nothing else
	@bash deploy/install build run image

build: install ## these and the executables (.build/$CONFIGURATION)
	@echo "Building ($(CONFIGURATION))"
	@bash deploy/swift build -c $(CONFIGURATION)

guest-image: ## build the small guest image ($STATE/images/guest.qcow2)
	@bash deploy/install image
	@bash deploy/guest-image/build "$(STATE)/images/guest.qcow2"

debian-image: ## build a full Debian image with cloud-init ($STATE/images/debian.qcow2)
	@bash deploy/install debian
	@bash deploy/debian-image/build "$(STATE)/images/debian.qcow2"

up: build ## install what is missing, build, start the cloud in $STATE
	@[ -e "$(STATE)/images/guest.qcow2" ] || bash deploy/guest-image/build "$(STATE)/images/guest.qcow2"
	@$(built) cloud up $(options) $(if $(HOSTS),--hosts "$(HOSTS)")

upgrade: build ## replace the services of the running cloud in $STATE by this build's, one after the other; servers run on
	@$(built) cloud upgrade $(options)

down: ## stop the cloud in $STATE and nothing else
	@if [ -n "$(osctl)" ]; then $(osctl) cloud down $(options); else echo "No cloud was started from here (osctl is not built)."; fi

status: ## every part of the cloud: health, version, memory, what is wrong
	@if [ -n "$(osctl)" ]; then $(osctl) status $(options); else echo "No cloud was started from here (osctl is not built)."; fi

demo: up ## a tenant's story on that cloud
	@$(built) demo $(options)

clean-state: down ## stop the cloud and remove its state directory
	@rm -rf -- "$(STATE)"

test: ## build and run all tests
	@bash deploy/test

format: ## give all Swift sources the form of .swift-format
	@bash deploy/format

lint: ## say which Swift sources have another form, or break a rule of .swift-format
	@bash deploy/format --check

bench: ## measure: ratios against peers in one run (ROWS="m1 m30" for some)
	@bash bench/run $(ROWS)

chaos: build ## kill processes at random under load, then look for anything lost (KILLS=n SEED=n MINUTES=n CASE=broker)
	@bash deploy/venv "$(CURDIR)/.venv" pytest 'python-openstackclient>=10,<11' 'osc-placement>=4'
	@.venv/bin/python Tests/Chaos/chaos.py $(if $(CASE),--case $(CASE)) $(if $(KILLS),--kills $(KILLS)) \
		$(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(if $(PORT_OFFSET),--port-offset $(PORT_OFFSET))

attack: ## attack a cloud of its own in all ways of Tests/System/attack (TESTS=expression for some)
	@bash deploy/attack $(if $(TESTS),-k '$(TESTS)')

fuzz: ## requests from the services' own OpenAPI documents against the running cloud (SEED=n, SECONDS=n or REQUESTS=n; REPLAY=file)
	@bash deploy/venv "$(CURDIR)/.venv" pytest 'python-openstackclient>=10,<11' 'osc-placement>=4'
	@.venv/bin/python Tests/Fuzz/fuzz.py --state "$(STATE)" $(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS)) \
		$(if $(REQUESTS),--requests $(REQUESTS)) $(if $(REPLAY),--replay $(REPLAY))

coverage: ## how many of OpenStack's API routes the running cloud has, and the missing ones (SERVICE=name for one, OPTIONAL=1 for old ones too)
	@if [ -z "$(osctl)" ]; then echo "No cloud was started from here (osctl is not built)."; exit 1; fi
	@python3 Tests/Coverage/coverage.py --osctl "$(osctl)" --state "$(STATE)" $(if $(SERVICE),--service $(SERVICE)) $(if $(OPTIONAL),--optional)

tempest: ## OpenStack's Tempest against the running cloud (TESTS=regex for some)
	@bash deploy/tempest/run $(if $(TESTS),'$(TESTS)')

simulate: ## the plane in one process under faults drawn from a seed (SEED=n, or SEEDS=n FROM=n; VERBOSE=1 shows each event)
	@bash deploy/simulate $(if $(SEED),--from $(SEED) --seeds 1,$(if $(FROM),--from $(FROM)) $(if $(SEEDS),--seeds $(SEEDS))) $(if $(VERBOSE),--verbose)

test-upgrade: ## upgrade a cloud from the previous recorded release under load, and find nothing lost (CASE=machine SEED=n SECONDS=n PREVIOUS=dir)
	@PREVIOUS="$(PREVIOUS)" CASE="$(CASE)" bash deploy/test-upgrade $(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS)) \
		$(if $(PORT_OFFSET),--port-offset $(PORT_OFFSET))

test-nightly: ## the slow tests: a full Debian guest that cloud-init configures
	@bash deploy/test-nightly

test-horizon: ## Debian's Horizon in a browser: every panel and the usual forms (nightly; TESTS=expression for some)
	@bash deploy/test-horizon $(if $(TESTS),-k '$(TESTS)')
