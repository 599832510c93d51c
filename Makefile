# Wolke. `make help` lists what there is; docs/operate.md explains.
STATE ?= $(CURDIR)/.state
PORT_OFFSET ?= 0
CONFIGURATION ?= release
override STATE := $(abspath $(STATE))
export STATE PORT_OFFSET CONFIGURATION

osctl = .build/$(CONFIGURATION)/osctl
cloud = $(osctl) cloud --state "$(STATE)" --port-offset "$(PORT_OFFSET)"

.PHONY: help up down status demo test clean-state guest-image debian-image build install configuration-reference

help: ## what you can do here
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  STATE=DIR       where the cloud lives (now $(STATE))"
	@echo "  PORT_OFFSET=N   added to every port, so that several clouds fit on one machine (now $(PORT_OFFSET))"

install:
	@bash deploy/install build run image

build: install
	@echo "Building ($(CONFIGURATION))"
	@swift build -c $(CONFIGURATION) --quiet

guest-image: ## build the small guest image ($STATE/images/guest.qcow2)
	@bash deploy/install image
	@bash deploy/guest-image/build "$(STATE)/images/guest.qcow2"

debian-image: ## build a full Debian image with cloud-init ($STATE/images/debian.qcow2)
	@bash deploy/install debian
	@bash deploy/debian-image/build "$(STATE)/images"

up: build ## install what is missing, build, start the cloud in $STATE
	@[ -e "$(STATE)/images/guest.qcow2" ] || bash deploy/guest-image/build "$(STATE)/images/guest.qcow2"
	@$(cloud) up

down: ## stop the cloud in $STATE and nothing else
	@if [ -x $(osctl) ]; then $(cloud) down; else echo "No cloud was started from here ($(osctl) is not built)"; fi

status: ## every part of the cloud: health, version, memory, what is wrong
	@$(osctl) status --state "$(STATE)"

demo: up ## a tenant's story on that cloud
	@bash deploy/demo/run

clean-state: down ## stop the cloud and remove its state directory
	@rm -rf -- "$(STATE)"

test: ## build and run all tests
	@bash deploy/test
