# What people do with this tree. `make` alone lists it.
# KUBECTL and NAMESPACE can be set from outside; everything else takes its settings from the environment of its tool.
KUBECTL ?= kubectl
NAMESPACE ?= kube-system
# Arguments of `make sandbox`, for example: make sandbox ARGS="--workers 20 --concurrency 5"
ARGS ?=
# How many seeds `make e2e-kills` runs, and the first of them.
SEEDS ?= 10
FIRST ?= 1
# Static programs are built in a folder of their own: they need other flags than the rest.
TRIPLE := $(shell uname -m)-unknown-linux-gnu
STATIC_TARGET ?= target/static
VERSION := $(shell sed -n 's/^appVersion: "\(.*\)"$$/\1/p' helm/Chart.yaml)

.DEFAULT_GOAL := help
.PHONY: help sandbox build images test lint deny bench proof e2e-smoke e2e e2e-kills crds crds-check helm install uninstall watch logs-operator logs-agent status

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

sandbox: ## upgrades an embedded cluster and shows it
	cargo run -p kubectl-cupcake -- sandbox $(ARGS)

build: ## all programs, optimised, in target/release
	cargo build --release --workspace --bins

images: ## both images as archives below target/images, without Docker: `ctr -n k8s.io images import FILE` on each node
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target $(TRIPLE) --target-dir $(STATIC_TARGET) \
		-p cupcake-operator -p cupcake-agent -p cupcake-host --bins
	tests/images/assemble $(STATIC_TARGET)/$(TRIPLE)/release target/images $(VERSION)

test: ## every test; builds a real kube-apiserver once (Go), takes promtool from Debian, and says so loudly if it cannot
	@if [ "$$CI" = true ] || command -v python3 >/dev/null; then tests/alerts/check; \
	else echo "SKIPPED: no python3: metrics, alerts and dashboards are NOT checked (tests/alerts/check)" >&2; fi
	cargo test --workspace

lint: ## formatting, and clippy with warnings as errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

deny: ## bans, licences and sources of the crates (needs cargo-deny)
	cargo deny check bans licenses sources

bench: ## the benches, as one table
	cargo bench -p cupcake-benches

proof: ## measures what docs/proof.md tells: rates, fail-overs, fences, conformance; an hour and a half on a quiet machine
	tests/proof/run

e2e-smoke: ## upgrades a real kubeadm cluster of two nodes on this machine (root; docs/real-nodes.md)
	tests/rig/e2e-smoke

e2e: ## all end-to-end scenarios on real nodes, with a table; what passed and did not change is not run again
	tests/rig/e2e

e2e-kills: ## the same cluster under kills at moments drawn from SEEDS seeds, from FIRST on
	tests/rig/e2e-kills $(SEEDS) $(FIRST)

crds: ## writes crds/generated from the types
	cargo run -p cupcake-crds --bin crdgen

crds-check: ## fails when crds/generated is not what the types say
	cargo run -p cupcake-crds --bin crdgen -- --check

helm: ## images and chart: assembled, linted, rendered, compared, and installed into a real API server (Python; needs no Rust)
	tests/images/check
	tests/helm/check
	tests/helm/install

install: ## the custom resource definitions into the cluster of KUBECONFIG
	$(KUBECTL) apply --server-side -f crds/generated
	$(KUBECTL) wait --for=condition=Established -f crds/generated

uninstall: ## removes the definitions and WITH THEM all upgrades; nothing on the nodes changes
	$(KUBECTL) delete --ignore-not-found -f crds/generated

watch: ## the updates of the cluster, live
	$(KUBECTL) get directupdates.cupcake.ricardomolendijk.com --watch

status: ## everything of CUPCAKE in the cluster
	$(KUBECTL) get cupcake
	$(KUBECTL) --namespace $(NAMESPACE) get lease cupcake-operator --ignore-not-found

logs-operator: ## follows the operator's log
	$(KUBECTL) --namespace $(NAMESPACE) logs --follow --prefix --selector app.kubernetes.io/part-of=cupcake,app.kubernetes.io/component=operator

logs-agent: ## follows the agents' logs
	$(KUBECTL) --namespace $(NAMESPACE) logs --follow --prefix --max-log-requests 50 --selector app.kubernetes.io/part-of=cupcake,app.kubernetes.io/component=agent
