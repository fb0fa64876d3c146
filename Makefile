# make help lists what there is. Settings: make VARIABLE=value, the environment, or .env (see .env.example), in this order.

SHELL := /bin/bash
.DEFAULT_GOAL := help
hash := \#
unquote := s/[[:space:]]+$(hash).*//; s/^"(.*)"$$/\1/; s/^'(.*)'$$/\1/
setting = $(or $($(1)),$(shell sed -n 's/^$(1)=//p' .env 2>/dev/null | tail -n 1 | sed -E "$(subst ",\",$(unquote))"),$(2))

DATASET_GIVEN := $(DATASET)
DATASET  := $(call setting,DATASET,kaggle)
BACKBONE := $(call setting,BACKBONE,efficientnet_b0)
WEIGHTS  := $(call setting,WEIGHTS)
SEED     := $(call setting,SEED,0)
CPUS     := $(call setting,CPUS,0)
WORKERS  := $(call setting,WORKERS,0)
PRECISION := $(call setting,PRECISION,auto)
CROP     := $(call setting,CROP,lungs)
CACHE_GB := $(call setting,CACHE_GB,0)
# How the jobs read films; the jobs take these from the environment and .env themselves.
READING  := $(call setting,MAX_MEGAPIXELS,200.0) $(call setting,FILE_TIMEOUT,20.0) $(call setting,FOLLOW_LINKS,False) $(call setting,TRUST_HEADERS,False)
DATA_DIR := $(patsubst ./%,%,$(call setting,DATA_DIR,data))
RUNS_DIR := $(patsubst ./%,%,$(call setting,RUNS_DIR,runs))
$(if $(and $(DATA_DIR),$(RUNS_DIR)),,$(error DATA_DIR and RUNS_DIR must not be empty))
$(if $(word 2,$(DATA_DIR))$(word 2,$(RUNS_DIR)),$(error DATA_DIR and RUNS_DIR must not hold spaces))
RUNNER   := $(or $(call setting,RUNNER),$(shell $(if $(shell command -v timeout),timeout 10) docker info >/dev/null 2>&1 && echo docker || echo local))
# As .env says; without it the caller, and for root the owner of this folder, so that sudo make leaves no files of root's behind.
owner_of = $(shell [ "$$(id -u)" = 0 ] && ls -ldn . | awk '{ print $$$(1) }' || id $(2))
UID := $(or $(call setting,UID),$(call owner_of,3,-u))
GID := $(or $(call setting,GID),$(call owner_of,4,-g))
SELINUX := $(call setting,SELINUX)
# Extra flags of the jobs of the chain.
CHAIN_ARGS := INGEST_ARGS SPLIT_ARGS TRAIN_A_ARGS TRAIN_B_ARGS EVALUATE_A_ARGS EVALUATE_ARGS PREDICT_ARGS
$(foreach name,$(CHAIN_ARGS),$(eval $(name) := $$(call setting,$(name))))
export DATASET BACKBONE WEIGHTS SEED CPUS WORKERS PRECISION CROP CACHE_GB UID GID

PYTHON   := .venv/bin/python
MANIFEST := $(DATA_DIR)/raw/manifest.csv
SPLIT    := $(DATA_DIR)/split.csv
PHASE_A  := $(RUNS_DIR)/phase_a/summary.json
PHASE_B  := $(RUNS_DIR)/phase_b/summary.json
SCORES_A := $(RUNS_DIR)/evaluation/phase_a/metrics.json
SCORES   := $(RUNS_DIR)/evaluation/metrics.json
ANSWERS  := $(RUNS_DIR)/predictions/test.csv

comma := ,
space := $(subst ,, )
READ_ONLY := ro$(if $(SELINUX),$(comma)$(SELINUX))
# A folder of films and a weights file lie outside the container: they are mounted read-only.
FOLDER := $(if $(findstring folder:,$(DATASET)),$(DATASET:folder:%=%))
ifeq ($(RUNNER),docker)
READY  := .env .make/image
run    = DATA_DIR='$(abspath $(DATA_DIR))' RUNS_DIR='$(abspath $(RUNS_DIR))' docker compose --progress $(if $(MAKE_TERMERR),auto,quiet) run --rm $(1)
INGEST = DATASET= WEIGHTS= $(call run,$(if $(FOLDER),-v "$$(. deploy/portable.sh; absolute '$(FOLDER)')":/input:$(READ_ONLY)) \
	$(if $(WEIGHTS),-v "$$(. deploy/portable.sh; absolute '$(WEIGHTS)')":'/weights/$(notdir $(WEIGHTS))':$(READ_ONLY))) ingest \
	--dataset $(if $(FOLDER),folder:/input,$(DATASET)) $(if $(WEIGHTS),--weights '/weights/$(notdir $(WEIGHTS))')
SCORE  = $(call run,-v "$$table:/tables/$$(basename "$$table"):$(READ_ONLY)" -v "$$labels:/labels/$$(basename "$$labels"):$(READ_ONLY)") \
	evaluate --predictions "/tables/$$(basename "$$table")" --labels "/labels/$$(basename "$$labels")"
JOIN   = DATASET= WEIGHTS= $(call run,-v "$$films:/input:$(READ_ONLY)" -v "$$labels:/labels/$$(basename "$$labels"):$(READ_ONLY)") \
	ingest --dataset folder:/input --labels "/labels/$$(basename "$$labels")"
JOB    = $(call run) $(1)
EXTERNAL = $(call run,-v "$$films:/input/$$name:$(READ_ONLY)" $(if $(LABELS),-v "$$labels:/labels/$$(basename "$$labels"):$(READ_ONLY)")) \
	evaluate --films "/input/$$name" $(if $(LABELS),--labels "/labels/$$(basename "$$labels")")
else ifeq ($(RUNNER),local)
READY  := .venv/installed
export DATA_DIR RUNS_DIR
# glibc's default gives memory back after every training step and faults it in again.
export MALLOC_MMAP_THRESHOLD_ := 4294967296
export MALLOC_TRIM_THRESHOLD_ := 17179869184
run    = $(PYTHON) -m jobs.$(1)
INGEST = $(call run,ingest)
SCORE  = $(call run,evaluate) --predictions "$$table" --labels "$$labels"
JOIN   = $(call run,ingest) --dataset "folder:$$films" --labels "$$labels"
JOB    = $(call run,$(1))
EXTERNAL = $(call run,evaluate) --films "$$films" $(if $(LABELS),--labels "$$labels")
else
$(error RUNNER is docker or local, not $(RUNNER))
endif
killed = [ $$code -ne 137 ] || echo "killed (137): out of memory? raise MEMORY in .env" >&2
strict = || { code=$$?; $(killed); exit $$code; }
# Exit code 3: done, but some files could not be used; they are named in the job's output.
tolerant = || { code=$$?; $(killed); [ $$code -eq 3 ] || exit $$code; }

.PHONY: help setup image demo all ingest labels split train-a train-b evaluate external score predict promote rollback test test-fast test-python bench chaos fuzz lint format lock release audit doctor clean clean-cache FORCE mounts same-films

help: ## list the targets
	@echo "cxr-jobs: from a folder of chest X-rays to an audited classifier and predictions in CSV or Parquet"
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-14s%s\n", $$1, $$2 }'
	@echo "Extra flags for one job: $(subst $(space),$(comma) ,$(CHAIN_ARGS)) (to stay: in .env), EXTERNAL_ARGS, SCORE_ARGS, PROMOTE_ARGS; make train-b TRAIN_B_ARGS='--epochs 12'"
	@echo "Runner: $(RUNNER) (RUNNER=docker or RUNNER=local chooses). Settings: .env.example"

setup: $(READY) .env mounts ## make everything ready: .env, and the image, or .venv where no engine answers
	@echo "runner: $(RUNNER), ready"

# Three sets of generated films (lib/dataset/synthetic.py): one fair, one whose classes come from one hospital each, and films of
# another hospital, which both models are scored on. The flags in .env do not count. To save time Phase A is not scored (-o).
DEMO = $(MAKE) --no-print-directory $(addsuffix =,$(CHAIN_ARGS)) BACKBONE=efficientnet_lite0 WEIGHTS= SPLIT_ARGS='--val_fraction 0.15 --test_fraction 0.25'
DEMO_FAIR = DATA_DIR=data/demo RUNS_DIR=runs/demo
DEMO_CONFOUNDED = DATA_DIR=data/demo/confounded RUNS_DIR=runs/demo/confounded
DEMO_ELSEWHERE = DATA_DIR=data/demo/elsewhere RUNS_DIR=runs/demo/elsewhere
DEMO_FILMS = FILMS=data/demo/elsewhere/cache/phantom-elsewhere-200-$(SEED)

demo: ## the whole chain on generated films, offline, about 3 minutes
	@echo "== 1 of 3: films of one hospital, the classes differ by what lies in the lungs"
	@$(DEMO) all DATASET=phantom INGEST_ARGS='--phantom_films 1000' $(DEMO_FAIR) \
		PREDICT_ARGS='--report $(if $(filter docker,$(RUNNER)),runs,runs/demo)/predictions/test.html' \
		-o runs/demo/evaluation/phase_a/metrics.json
	@echo "== 2 of 3: 400 of these chests, but the films of each class come from a hospital of their own"
	@$(DEMO) evaluate DATASET=phantom:confounded INGEST_ARGS='--phantom_films 400' $(DEMO_CONFOUNDED) \
		-o runs/demo/confounded/evaluation/phase_a/metrics.json
	@echo "== 3 of 3: both models on the films of another hospital"
	@$(DEMO) ingest DATASET=phantom:elsewhere INGEST_ARGS='--phantom_films 200' $(DEMO_ELSEWHERE)
	@$(DEMO) external $(DEMO_FILMS) $(DEMO_FAIR)
	@$(DEMO) external $(DEMO_FILMS) $(DEMO_CONFOUNDED) EXTERNAL_ARGS=--nobaselines
	@deploy/demo.sh runs/demo $(notdir $(DEMO_FILMS))

all: $(SCORES_A) $(SCORES) $(ANSWERS) ## films → split → Phase A → Phase B → evaluation → predictions; only what changed
	@echo "results: $(RUNS_DIR)/report.html (read this first), $(RUNS_DIR)/evaluation/, $(ANSWERS)"

ingest: $(READY) mounts same-films ## bring films (DATASET=) and weights (BACKBONE=), copying what is missing
	$(INGEST) $(INGEST_ARGS) $(tolerant)

labels: export CXR_FILMS = $(FILMS)
labels: export CXR_LABELS = $(LABELS)
labels: $(READY) mounts ## films with a reader's labels join data/raw: make labels FILMS=/srv/inbox LABELS=labels.csv; then make all
	@[ -n "$$CXR_FILMS" ] && [ -n "$$CXR_LABELS" ] || { echo "usage: make labels FILMS=DIR LABELS=FILE.csv|FILE.json"; exit 2; }
	@. deploy/portable.sh; films=$$(absolute "$${CXR_FILMS$(hash)folder:}") labels=$$(absolute "$$CXR_LABELS"); \
	[ -d "$$films" ] || { echo "error: there is no folder FILMS=$$films" >&2; exit 2; }; \
	[ -f "$$labels" ] || { echo "error: there is no file LABELS=$$labels" >&2; exit 2; }; \
	$(JOIN) $(tolerant)

split: $(SPLIT) ## deal films to train, val and test
train-a: $(PHASE_A) ## Phase A: the head on a frozen backbone
train-b: $(PHASE_B) ## Phase B: last block and head, from Phase A's best
evaluate: $(SCORES_A) $(SCORES) ## score both phases on the test films

external: export CXR_FILMS = $(FILMS)
external: export CXR_LABELS = $(LABELS)
external: $(READY) mounts ## score a labelled folder from elsewhere: make external FILMS=/srv/labelled [LABELS=labels.csv, with path,label]
	@[ -n "$$CXR_FILMS" ] || { echo "usage: make external FILMS=DIR [LABELS=FILE.csv]"; exit 2; }
	@. deploy/portable.sh; films=$$(absolute "$${CXR_FILMS$(hash)folder:}") labels=$$(absolute "$$CXR_LABELS"); name=$$(basename -- "$$films"); \
	[ -d "$$films" ] || { echo "error: there is no folder FILMS=$$films" >&2; exit 2; }; \
	[ -z "$$CXR_LABELS" ] || [ -f "$$labels" ] || { echo "error: there is no file LABELS=$$labels" >&2; exit 2; }; \
	$(EXTERNAL) $(EXTERNAL_ARGS) $(tolerant)

score: export CXR_TABLE = $(TABLE)
score: export CXR_LABELS = $(LABELS)
score: $(READY) mounts ## score a table of predictions on the films that a reader has labelled: make score TABLE=today.csv LABELS=labels.csv
	@[ -n "$$CXR_TABLE" ] && [ -n "$$CXR_LABELS" ] || { echo "usage: make score TABLE=FILE.csv|FILE.parquet LABELS=FILE.csv|FILE.json"; exit 2; }
	@. deploy/portable.sh; table=$$(absolute "$$CXR_TABLE") labels=$$(absolute "$$CXR_LABELS"); \
	[ -e "$$table" ] || { echo "error: there is no table TABLE=$$table" >&2; exit 2; }; \
	[ -f "$$labels" ] || { echo "error: there is no file LABELS=$$labels" >&2; exit 2; }; \
	$(SCORE) $(SCORE_ARGS) $(strict)

predict: export CXR_INPUT = $(INPUT)
predict: export CXR_OUTPUT = $(OUTPUT)
predict: export REPORT := $(REPORT)
predict: export INCREMENTAL := $(INCREMENTAL)
predict: export PYTHON := $(PYTHON)
predict: export RUNNER := $(RUNNER)
predict: export DATA_DIR := $(DATA_DIR)
predict: export RUNS_DIR := $(RUNS_DIR)
predict: $(READY) mounts ## classify a folder: make predict INPUT=/srv/films OUTPUT=/srv/out/today.csv [REPORT=1: a page beside it] [INCREMENTAL=1: only what is new]
	@[ -n "$$CXR_INPUT" ] && [ -n "$$CXR_OUTPUT" ] || { echo "usage: make predict INPUT=DIR_OR_FILE OUTPUT=FILE.csv|FILE.parquet"; exit 2; }
	@deploy/predict.sh "$$CXR_INPUT" "$$CXR_OUTPUT" $(PREDICT_ARGS)

promote: $(READY) mounts ## let the trained model answer in place of the one before, which is kept in RUNS_DIR/models
	$(call JOB,promote) $(PROMOTE_ARGS) $(strict)

rollback: $(READY) mounts ## let the version that answered before answer again
	$(call JOB,promote) --rollback $(strict)

# Films that were added, changed or removed at the source since the manifest was written.
CHANGED := $(if $(FOLDER),$(shell [ -e '$(MANIFEST)' ] && find '$(FOLDER)' -newer '$(MANIFEST)' -print 2>/dev/null | head -n 1))

# The default set takes the place of no other films: .env, as make writes it, names it too. Another set does where somebody names it.
same-films:
	@$(if $(DATASET_GIVEN)$(filter-out kaggle,$(DATASET)),exit 0;) record='$(DATA_DIR)/raw/source.json'; \
	[ -e "$$record" ] && ! grep -q '"dataset": "kaggle"' "$$record" || exit 0; \
	held=$$(sed -n -e 's|"folder:/input"|"folder:PATH"|' -e 's/.*"description": "\([^"]*\)".*/\1/p' "$$record" | sed 's/ ([0-9]* films, .*//'); \
	echo "error: $(DATA_DIR)/raw holds $$held, and DATASET names no films: give DATASET=$$held, best in .env with BACKBONE." \
		"DATASET=kaggle on the command line brings the Kaggle set in their place. Nothing was changed." >&2; exit 2

# The chain. Each job writes its target last and whole; the settings files change only when a setting does.
$(MANIFEST): $(DATA_DIR)/.settings-ingest $(if $(CHANGED),FORCE) | $(READY) mounts
	@echo "runner: $(RUNNER)"
	$(INGEST) $(INGEST_ARGS) $(tolerant)
	@touch $@

$(DATA_DIR)/cache/weights/$(BACKBONE).json: | $(MANIFEST)
	@[ -e $@ ] || { $(INGEST) $(INGEST_ARGS) $(tolerant); }

$(SPLIT): $(MANIFEST) $(DATA_DIR)/.settings-split | $(READY) mounts
	$(call JOB,split) $(SPLIT_ARGS) $(strict)

$(PHASE_A): $(SPLIT) $(DATA_DIR)/cache/weights/$(BACKBONE).json $(RUNS_DIR)/.settings-train-a | $(READY) mounts
	$(call JOB,train) --phase a $(TRAIN_A_ARGS) $(strict)
	@touch $@

$(PHASE_B): $(PHASE_A) $(RUNS_DIR)/.settings-train-b | $(READY) mounts
	$(call JOB,train) --phase b $(TRAIN_B_ARGS) $(strict)
	@touch $@

$(SCORES_A): $(PHASE_A) $(RUNS_DIR)/.settings-evaluate-a | $(READY) mounts
	$(call JOB,evaluate) --model '$(if $(filter docker,$(RUNNER)),runs,$(RUNS_DIR))/phase_a/model' \
		--output '$(if $(filter docker,$(RUNNER)),runs,$(RUNS_DIR))/evaluation/phase_a' $(EVALUATE_A_ARGS) $(tolerant)

# The job itself finds out whether a source can be left out; EVALUATE_ARGS=--noleave_source_out spares the time.
LEAVE_SOURCE_OUT = $(if $(or $(findstring leave_source_out,$(EVALUATE_ARGS)),$(findstring --films,$(EVALUATE_ARGS))),,--leave_source_out)
$(SCORES): $(PHASE_B) $(SCORES_A) $(RUNS_DIR)/.settings-evaluate | $(READY) mounts
	$(call JOB,evaluate) $(LEAVE_SOURCE_OUT) $(EVALUATE_ARGS) $(tolerant)

$(ANSWERS): $(PHASE_B) $(RUNS_DIR)/.settings-predict | $(READY) mounts
	$(call JOB,predict_batch) --model '$(if $(filter docker,$(RUNNER)),runs,$(RUNS_DIR))/model' \
		--input '$(if $(filter docker,$(RUNNER)),data,$(DATA_DIR))/test' \
		--output '$(if $(filter docker,$(RUNNER)),runs,$(RUNS_DIR))/predictions/test.csv' --nodrift $(PREDICT_ARGS) $(tolerant)

$(DATA_DIR)/.settings-ingest: | same-films
$(DATA_DIR)/.settings-ingest: SETTINGS = $(DATASET) $(WEIGHTS) $(SEED) $(READING) $(INGEST_ARGS)
$(DATA_DIR)/.settings-split: SETTINGS = $(SEED) $(SPLIT_ARGS)
$(RUNS_DIR)/.settings-train-a: SETTINGS = $(BACKBONE) $(SEED) $(PRECISION) $(CROP) $(TRAIN_A_ARGS)
$(RUNS_DIR)/.settings-train-b: SETTINGS = $(BACKBONE) $(SEED) $(PRECISION) $(CROP) $(TRAIN_B_ARGS)
$(RUNS_DIR)/.settings-evaluate-a: SETTINGS = $(PRECISION) $(EVALUATE_A_ARGS)
$(RUNS_DIR)/.settings-evaluate: SETTINGS = $(PRECISION) $(EVALUATE_ARGS)
$(RUNS_DIR)/.settings-predict: SETTINGS = $(PRECISION) $(PREDICT_ARGS)
$(DATA_DIR)/.settings-% $(RUNS_DIR)/.settings-%: FORCE | mounts
	@printf '%s\n' '$(subst ','\'',$(SETTINGS))' | cmp -s - '$@' || printf '%s\n' '$(subst ','\'',$(SETTINGS))' > '$@'

# Mount points: made here, or the engine makes them as root.
mounts:
	@mkdir -p '$(DATA_DIR)' '$(RUNS_DIR)'
	@[ "$$(id -u)" != 0 ] || chown $(UID):$(GID) '$(DATA_DIR)' '$(RUNS_DIR)'

.env:
	@sed -e 's/^UID=.*/UID=$(UID)/' -e 's/^GID=.*/GID=$(GID)/' .env.example > .env
	@deploy/engine.sh | grep -v '^#' | while read -r line; do sed -e "s/^$${line%%=*}=.*/$$line/" .env > .env.new && mv .env.new .env; done
	@echo "wrote .env with $$(grep -E '^(UID|GID|USERNS|SELINUX)=.' .env | paste -sd ' ' -)"

# What the image is made of. The list itself is a prerequisite too: a deleted file has no time stamp to compare.
IMAGE_FILES := $(shell find lib jobs -name __pycache__ -prune -o -type f -print | LC_ALL=C sort)
IMAGE_BUILD  = docker compose build --build-arg VERSION='$(shell sed -n 's/^__version__ = "\(.*\)".*/\1/p' lib/__init__.py)' train

image: .env ## build the container image
	$(IMAGE_BUILD)
	@mkdir -p .make && touch .make/image

.make/image: Dockerfile .dockerignore deploy/slim.sh requirements-torch.txt requirements.lock $(IMAGE_FILES) .make/image-files | .env
	@echo "building the image (log: .make/build.log)"
	@$(IMAGE_BUILD) > .make/build.log 2>&1 || { tail -n 30 .make/build.log; exit 1; }
	@touch $@

.make/image-files: FORCE
	@mkdir -p .make; printf '%s\n' $(IMAGE_FILES) | cmp -s - $@ || printf '%s\n' $(IMAGE_FILES) > $@

.venv/installed: requirements-torch.txt requirements.lock
	@echo "installing into .venv (log: .venv/install.log)"
	@python=$$(deploy/python.sh $(PYTHON_VERSION)) || exit $$?; echo "Python: $$python"; [ "$$python" = .venv/bin/python ] || \
		{ rm -rf .venv; "$$python" -m venv .venv || { rm -rf .venv; exit 1; }; }; : > .venv/install.log
	@# PyTorch's CPU index, one try; elsewhere the general index, whose torch may bring CUDA packages.
	@{ $(PYTHON) -m pip install --no-deps --retries 0 --timeout 10 --index-url https://download.pytorch.org/whl/cpu -r requirements-torch.txt \
		|| $(PYTHON) -m pip install "$$(grep ^torch= requirements-torch.txt)"; \
	   $(PYTHON) -m pip install --no-deps -r requirements-torch.txt && \
	   $(PYTHON) -m pip install --no-deps --require-hashes -r requirements.lock; } >> .venv/install.log 2>&1 \
		|| { tail -n 20 .venv/install.log; exit 1; }
	@touch $@

.venv/installed-dev: .venv/installed requirements-ray.lock requirements-dev.lock
	@$(PYTHON) -m pip install --no-deps --require-hashes -r requirements-ray.lock -r requirements-dev.lock >> .venv/install.log 2>&1 \
		|| { tail -n 20 .venv/install.log; exit 1; }
	@touch $@

test: .venv/installed-dev ## run all tests and print the coverage; those in containers are skipped where no engine answers
	$(PYTHON) -m pytest -n 2 --cov --cov-report=term:skip-covered $(PYTEST_ARGS)

test-fast: .venv/installed-dev ## run the tests without jobs, training and containers, in a minute
	$(PYTHON) -m pytest -n 2 -m 'not slow' $(PYTEST_ARGS)

# The chain and the fast tests in a throwaway .venv of another Python.
test-python: ## the fast tests and the chain on another Python: make test-python PYTHON_VERSION=3.13
	@[ -n "$(PYTHON_VERSION)" ] || { echo "usage: make test-python PYTHON_VERSION=3.12|3.13"; exit 2; }
	@deploy/test-python.sh "$(PYTHON_VERSION)" $(PYTEST_ARGS)

bench: .venv/installed-dev ## measure against what one would write instead: make bench [QUICK=1] [FILMS=DIR]
	$(PYTHON) -m tests.benchmarks.bench $(if $(QUICK),--quick) $(if $(FILMS),--films '$(FILMS)') --out '$(RUNS_DIR)' $(BENCH_ARGS)

chaos: .venv/installed-dev ## kill, starve and double every job, compare with an undisturbed run: make chaos [ROUNDS=3] [SEED=0]
	$(PYTHON) -m tests.chaos.chaos run --rounds $(or $(ROUNDS),3) --seed $(SEED)

fuzz: .venv/installed-dev ## damaged files of every format against the reader: make fuzz [INPUTS=50000] [SEED=0]
	$(PYTHON) -m tests.chaos.fuzz --inputs $(or $(INPUTS),50000) --seed $(SEED)

SCRIPTS := $(wildcard deploy/*.sh deploy/*/*.sh) .ci/run

lint: .venv/installed-dev ## formatting, lint, types, order of imports, scripts, compose.yaml, and docs that match the program
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	@if command -v shellcheck >/dev/null; then echo "shellcheck $(SCRIPTS)"; shellcheck -x $(SCRIPTS); \
		else echo "skipped: there is no shellcheck to look at the scripts"; fi
	@if docker compose version >/dev/null 2>&1; then echo "docker compose config -q"; \
		docker compose --profile '*' config -q; \
		else echo "skipped: there is no docker compose to look at compose.yaml"; fi
	.venv/bin/cog -I . --check -P -r docs/COMMANDS.md docs/ARCHITECTURE.md

format: .venv/installed-dev ## format the code and regenerate the docs
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .
	.venv/bin/cog -I . -P -r docs/COMMANDS.md docs/ARCHITECTURE.md

lock: .venv/installed-dev ## pin every package again after a change to requirements*.txt
	$(PYTHON) -m pip install -q pip-tools
	.venv/bin/pip-compile -q $(LOCK_FLAGS) -o requirements.lock requirements.txt requirements-torch.txt
	.venv/bin/pip-compile -q $(LOCK_FLAGS) -o requirements-ray.lock requirements-ray.txt
	.venv/bin/pip-compile -q $(LOCK_FLAGS) -o requirements-dev.lock requirements-dev.txt
LOCK_FLAGS := --generate-hashes --strip-extras --no-annotate --no-header --no-emit-index-url --no-emit-find-links \
	--no-emit-trusted-host --unsafe-package torch --unsafe-package torchvision

release: ## give this state a version: make release VERSION=1.2.3 (changelog section, commit, tag)
	@deploy/release.sh '$(VERSION)'

doctor: ## look over this machine: engine, image, folders, model, credentials, locks
	@deploy/doctor.sh

audit: ## look the pinned packages up in a database of known vulnerabilities
	@deploy/audit.sh

clean: ## delete results, splits and the demo; films, weights and caches in data/ stay
	rm -rf $(addprefix '$(RUNS_DIR)'/,phase_a phase_b phase_a.previous phase_b.previous model evaluation external predictions report.html best_*.pt .settings-*)
	rm -rf $(addprefix '$(DATA_DIR)'/,train val test split.csv .settings-*) data/demo runs/demo

clean-cache: ## delete what the frozen layers computed; the next training computes it again
	rm -rf '$(DATA_DIR)/cache/features' '$(RUNS_DIR)/cache' data/demo/cache/features data/demo/confounded/cache/features
