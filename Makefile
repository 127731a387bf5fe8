PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo clean-demo study test test-faults docs

install: .venv/installed

.venv/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 12) else \
	"This needs Python 3.11 or 3.12, not %d.%d: make PYTHON=/path/to/python3.11 ..." % v)'
	@echo 'Installing into .venv; this takes a minute or two.'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -c 'import yapf.yapflib.yapf_api' # writes its grammar once; two processes at a time would spoil it
	@touch $@

demo: install
	@$(BIN)/python tools/demo.py

clean-demo:
	rm -rf data/demo data/.demo.* work_dirs/data work_dirs/*_demo_* work_dirs/leaderboard*

# All studies, in the order of studies/README.md; MMINCUBATION_REAL_DATA names the folder of the public data.
STUDIES := digits_lr digits digits_ablations tiny_lr tiny transfer

study: install
	@mkdir -p data; for name in tiny_imagenet_32 nuclei coco_person camvid; do \
	[ -e data/$$name ] || [ ! -e "$$MMINCUBATION_REAL_DATA/$$name" ] || ln -s "$$MMINCUBATION_REAL_DATA/$$name" data; done
	@$(BIN)/python tools/make_demo_data.py
	@failed=0; for name in $(STUDIES); do $(BIN)/python tools/suite.py studies/$$name.py --jobs $$(nproc); code=$$?; \
	[ $$code -lt 70 ] || exit $$code; [ $$code = 0 ] || failed=1; done; exit $$failed # 75 and 130: stopped

test: install
	@start=$$(date +%s); trap 'echo "make test: $$((($$(date +%s) - start) / 60)) min $$((($$(date +%s) - start) % 60)) s"' EXIT; \
	$(BIN)/ruff check . && OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-faults: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m faults

docs: .venv/docs
	$(BIN)/properdocs build --strict

.venv/docs: .venv/installed requirements-docs.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: -r requirements-docs.txt
	@touch $@
