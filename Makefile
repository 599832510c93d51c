# Wolke. `make help` lists what there is; docs/operate.md explains.
STATE ?= $(CURDIR)/.state
CONFIGURATION ?= release
override STATE := $(abspath $(STATE))
export STATE CONFIGURATION SWIFT

built = .build/$(CONFIGURATION)/osctl
# `down`, `status` and `coverage` use any existing build.
osctl = $(firstword $(wildcard $(built) .build/release/osctl .build/debug/osctl))
options = --state "$(STATE)" $(if $(PORT_OFFSET),--port-offset "$(PORT_OFFSET)")

.PHONY: help up upgrade down status demo format lint test test-nightly test-bare-metal test-horizon test-consoles tempest interop bench bench-guests chaos simulate test-upgrade attack fuzz coverage clean-state guest-image debian-image build install

help: ## list all targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  STATE=DIR              the cloud's directory (now $(STATE))"
	@echo "  PORT_OFFSET=N          added to every port, so that several clouds fit on one machine (default 0)"
	@echo "  DATAPATH=WORD          Open vSwitch's datapath: system, netdev or auto (default auto: the kernel's if it works)"
	@echo "  HOSTS=N                hypervisor hosts: this machine and N-1 simulated ones (default 1)"
	@echo "  WITH=NAME,…            optional services of the cloud, or all (default none; osctl cloud services lists them)"
	@echo "  CONFIGURATION=debug    build faster, run slower"
	@echo "  SWIFT=PATH             the Swift toolchain, if it is not found automatically"

install: ## install the Debian packages for building and running
	@bash deploy/install build run image

build: install ## install packages and build what a cloud runs (.build/$CONFIGURATION)
	@echo "Building ($(CONFIGURATION))"
	@WOLKE_BUILD=cloud bash deploy/swift build -c $(CONFIGURATION)

guest-image: ## build the small guest image ($STATE/images/guest.qcow2)
	@bash deploy/install image
	@bash deploy/guest-image/build "$(STATE)/images/guest.qcow2"

debian-image: ## build a full Debian image with cloud-init ($STATE/images/debian.qcow2)
	@bash deploy/install debian
	@bash deploy/debian-image/build "$(STATE)/images/debian.qcow2"

up: build ## install missing packages, build, start the cloud in $STATE
	@[ -e "$(STATE)/images/guest.qcow2" ] || bash deploy/guest-image/build "$(STATE)/images/guest.qcow2"
	@$(built) cloud up $(options) $(if $(HOSTS),--hosts "$(HOSTS)") $(if $(WITH),--with "$(WITH)")

upgrade: build ## replace the services of the running cloud in $STATE with this build's, one after the other; servers keep running
	@$(built) cloud upgrade $(options)

down: ## stop the cloud in $STATE and nothing else
	@if [ -n "$(osctl)" ]; then $(osctl) cloud down $(options); else echo "No cloud was started from here (osctl is not built)."; fi

status: ## show health, version and memory of every part, and any problems
	@if [ -n "$(osctl)" ]; then $(osctl) status $(options); else echo "No cloud was started from here (osctl is not built)."; fi

demo: up ## start the cloud and run an example tenant on it
	@$(built) demo $(options)

clean-state: down ## stop the cloud and remove its state directory
	@rm -rf -- "$(STATE)"

test: ## build and run all tests
	@bash deploy/test

format: ## format all Swift sources (.swift-format)
	@bash deploy/format

lint: ## check the format of all Swift sources (.swift-format), and that targets declare what they import
	@bash deploy/format --check
	@python3 deploy/declared-imports

bench: ## run the benchmarks: ratios against peers in one run (ROWS="m1 m30" for some)
	@bash bench/run $(ROWS)

bench-guests: ## measure live migrations, images and resizes of real guests on two hosts (MOVES=n; ROWS="moves virsh image resize" for some)
	@bash bench/guests $(ROWS)

chaos: build ## kill processes at random under load, then check that nothing was lost (KILLS=n SEED=n MINUTES=n CASE=broker)
	@bash deploy/venv "$(CURDIR)/.venv" clients
	@.venv/bin/python Tests/Chaos/chaos.py $(if $(CASE),--case $(CASE)) $(if $(KILLS),--kills $(KILLS)) \
		$(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(if $(PORT_OFFSET),--port-offset $(PORT_OFFSET))

attack: ## run all attacks of Tests/System/attack on a new cloud (TESTS=expression for some)
	@bash deploy/attack $(if $(TESTS),-k '$(TESTS)')

fuzz: ## send requests generated from the OpenAPI documents to the running cloud (SEED=n, SECONDS=n or REQUESTS=n; REPLAY=file)
	@bash deploy/venv "$(CURDIR)/.venv" clients
	@.venv/bin/python Tests/Fuzz/fuzz.py --state "$(STATE)" $(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS)) \
		$(if $(REQUESTS),--requests $(REQUESTS)) $(if $(REPLAY),--replay $(REPLAY))

coverage: ## count the OpenStack API routes of the running cloud, and list the missing ones (SERVICE=name for one, OPTIONAL=1 for old ones too)
	@if [ -z "$(osctl)" ]; then echo "No cloud was started from here (osctl is not built)."; exit 1; fi
	@python3 Tests/Coverage/coverage.py --osctl "$(osctl)" --state "$(STATE)" $(if $(SERVICE),--service $(SERVICE)) $(if $(OPTIONAL),--optional)

tempest: ## run OpenStack's Tempest against the running cloud (TESTS=regex for some)
	@bash deploy/tempest/run $(if $(TESTS),'$(TESTS)')

interop: ## run the tests that OpenStack's interoperability guideline names against the running cloud
	@bash deploy/tempest/run --interop

simulate: ## simulate the control plane in one process, with faults from a seed (SEED=n, or SEEDS=n FROM=n; VERBOSE=1 shows each event)
	@bash deploy/simulate $(if $(SEED),--from $(SEED) --seeds 1,$(if $(FROM),--from $(FROM)) $(if $(SEEDS),--seeds $(SEEDS))) $(if $(VERBOSE),--verbose)

test-upgrade: ## upgrade a cloud from the previous recorded release under load, and check that nothing was lost (CASE=machine SEED=n SECONDS=n PREVIOUS=dir)
	@PREVIOUS="$(PREVIOUS)" CASE="$(CASE)" bash deploy/test-upgrade $(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS)) \
		$(if $(PORT_OFFSET),--port-offset $(PORT_OFFSET))

test-nightly: ## run the slow tests: a full Debian guest configured by cloud-init
	@bash deploy/test-nightly

test-bare-metal: ## the drivers of bare metal with emulated controllers (sushy-tools and virtualbmc over QEMU machines)
	@bash deploy/test-bare-metal

test-horizon: ## test Debian's Horizon in a browser: every panel and the most common forms (nightly; TESTS=expression for some)
	@bash deploy/test-horizon $(if $(TESTS),-k '$(TESTS)')

test-consoles: ## test the consoles' URLs in a browser: type into a guest's login on its display and its serial port (nightly; TESTS=expression for some)
	@bash deploy/test-consoles $(if $(TESTS),-k '$(TESTS)')
