#!/usr/bin/env bash
# What a quarter of an hour of one GPU is worth most for, in that order: accuracies, the profile of a step, the notebook by
# section, the tests that need a GPU, then more seeds by turns.
#
#   bash benchmarks/on_gpu.sh [--tiny] [--minutes N] [--data DATA] [FOLDER]
#
# Rows, logs and pictures are written into FOLDER (else $OUT, else runs/on_gpu) as they come, eight files at most and no weights.
# Stopped and started again it goes on: rows that are stored, here or in benchmarks/results, are not trained again, a training
# that was stopped goes on after its last epoch, and what is done is not done again.
#   --minutes N   no further seed is begun after N minutes (default: 14)
#   --data DATA   the data set (default: data/cifar10-jpeg)
#   --tiny        everything made small, on any machine: shows that all of it works, measures nothing
# PYTHON names the interpreter (default: .venv/bin/python, else python3), WORK the folder of the runs (default: the repository).
set -u
ROOT=$(cd "$(dirname "$0")/.." && pwd)
BEGAN=$SECONDS MINUTES=14 DATA=data/cifar10-jpeg FOLDER=${OUT:-} TINY=
while (($#)); do
    case $1 in
        --tiny) TINY=", tiny" ;;
        --minutes | --data)
            (($# > 1)) || { echo "$1 needs a value: see the head of $0." >&2; exit 2; }
            [[ $1 == --data ]] && DATA=$2 || MINUTES=$2
            shift ;;
        -*) echo "Unknown option $1: see the head of $0." >&2; exit 2 ;;
        *) FOLDER=$1 ;;
    esac
    shift
done
[[ $MINUTES =~ ^[0-9]+$ ]] || { echo "--minutes is $MINUTES; give a whole number." >&2; exit 2; }
[[ -z $TINY ]] || { DATA=digits; export OMP_NUM_THREADS=1; } # threads that wait for each other cost more than they bring there
[[ $DATA == digits ]] || DATA=$(cd "$ROOT" && realpath -e "$DATA") || { echo "Give a folder with --data." >&2; exit 2; }
[[ -n ${PYTHON:-} ]] || { [[ -x $ROOT/.venv/bin/python ]] && PYTHON=$ROOT/.venv/bin/python || PYTHON=python3; }
WORK=${WORK:-$ROOT}
mkdir -p "$WORK" "${FOLDER:=$WORK/runs/on_gpu}" || exit 2
FOLDER=$(cd "$FOLDER" && pwd)
export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH} ERA_CACHE_DIR=$WORK/runs/.cache
export NO_ALBUMENTATIONS_UPDATE=1 PYTHONUNBUFFERED=1 TQDM_DISABLE=1
cd "$WORK" || exit 2
exec 3>&1 4>&2 > >(tee -a "$FOLDER/log.txt") 2>&1
LOG=$!
trap 'exec 1>&3 2>&4; wait "$LOG"' EXIT # the log's last lines are written too

CHILD= FAILED=()
trap 'stop 143' TERM
trap 'stop 130' INT
stop() { # the step that runs stops by itself, and with it everything
    [[ -z $CHILD ]] || { kill -TERM "$CHILD" 2>/dev/null; wait "$CHILD"; }
    echo "== stopped after $((SECONDS - BEGAN)) s; run it again to go on"
    exit "$1"
}
step() { # name, command: one that fails does not stop those behind it
    local name=$1 code
    shift
    echo "== $name (after $((SECONDS - BEGAN)) s)"
    "$@" & CHILD=$!
    wait "$CHILD"
    code=$?
    CHILD=
    ((code == 0)) || { FAILED+=("$name"); echo "== $name ended with $code"; }
    return "$code"
}
rows() { # recipe, seeds
    local recipe=$1$TINY
    shift
    step "$recipe, seeds $*" "$PYTHON" "$ROOT/benchmarks/accuracy.py" --full --data "$DATA" --recipes "$recipe" --seeds "$@" \
        --store "$FOLDER/accuracy.json" --merge "$ROOT/benchmarks/results/accuracy.json"
}
profile() {
    [[ -e $FOLDER/step_profile.json ]] && return
    local small=()
    [[ -z $TINY ]] || small=(--batch-size 16 --pixels 8 --rounds 2 --side 128)
    step "profile of a step" "$PYTHON" "$ROOT/benchmarks/step_profile.py" "${small[@]}" \
        --table "$WORK/runs/step_profile.txt" --json "$FOLDER/step_profile.json" && cat "$WORK/runs/step_profile.txt"
}
variants() {
    [[ -n $TINY || -e $FOLDER/step_variants.json ]] && return # they are ways to drive a GPU
    step "ways to drive a step" timeout 150 "$PYTHON" "$ROOT/benchmarks/step_variants.py" --json "$FOLDER/step_variants.json"
}
notebook() {
    [[ -e $FOLDER/notebook_sections.json ]] && return
    local values=(-p preset fast -p dataset "$DATA") run=$WORK/runs/notebook-on-gpu
    [[ -z $TINY ]] || values=(-p preset smoke -p dataset digits -p train_images 64 -p mistakes 2 -p explore_methods False
        -p check_faithfulness False -p check_sanity False -p plant_shortcut False)
    rm -rf "$run" # one that was stopped: its seconds would not be those of a whole one
    step notebook "$PYTHON" -m era_support_packages.notebook run "${values[@]}" -p output_dir "$WORK/runs" \
        -p run_name notebook-on-gpu || return
    cp "$run/notebook.html" "$FOLDER/notebook.html"
    "$PYTHON" -m zipfile -c "$FOLDER/figures.zip" "$run"/*.png
    step "notebook by section" "$PYTHON" "$ROOT/benchmarks/notebook_sections.py" "$run/notebook.ipynb" \
        --json "$FOLDER/notebook_sections.json"
}
equality() {
    [[ -e $FOLDER/tests.xml ]] && return
    local files=(tests/training/test_cuda_graph.py tests/datasets/test_device_augmentation.py tests/training/test_muon.py)
    [[ -z $TINY ]] || files=("${files[0]}")
    step "equality tests" "$PYTHON" -m pytest -q --rootdir "$ROOT" "${files[@]/#/$ROOT/}" --junitxml "$WORK/runs/tests.xml" \
        && mv "$WORK/runs/tests.xml" "$FOLDER/tests.xml"
}

SEEDS=(0 1 2) MORE=({1..9})
[[ -z $TINY ]] || SEEDS=(0) MORE=(1)
rows best 0
rows "published, 26 epochs" "${SEEDS[@]}"
rows fast "${SEEDS[@]}"
rows "published, 8 epochs" "${SEEDS[@]}"
rows "published, 80 epochs" 0
profile
variants
notebook
equality
for seed in "${MORE[@]}"; do
    for recipe in fast "published, 26 epochs" best "published, 80 epochs"; do
        ((SECONDS - BEGAN < 60 * MINUTES)) || break 2
        rows "$recipe" "$seed"
        [[ -z $TINY ]] || break
    done
done
echo "== everything is in $FOLDER after $((SECONDS - BEGAN)) s${FAILED[*]:+; what failed: ${FAILED[*]}}"
((${#FAILED[@]} == 0))
