#!/usr/bin/env bash
# Our trainer against the contest's unmodified script, A/B/A/B on one GPU; at most eight minutes.
#
#   THEIRS=path/to/train_gpt.py bench/trainer/hopper.sh [OUT]
#
# Assumes one Hopper GPU, this project's environment (PYTHON, default python3) and 2 GB of disk in OUT.
# Parts, each a line of the table at the end: ours and theirs at 9x512 with 65,536-token microbatches
# (bar: our step at most 0.94 of theirs at an equal loss), the frontier's 11x512 at sequence 2048, its
# second start with a warm compile cache, and peak memory.
# DEVICE=cpu runs our parts on a tiny model in seconds: what the tests run. Not yet run on a GPU.
set -euo pipefail

out=${1:-$(mktemp -d)}
python=${PYTHON:-python3}
device=${DEVICE:-cuda}
theirs=${THEIRS:-}
steps=${STEPS:-40}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"
out=$(cd "$out" && pwd)

# Kept over all parts, so that the second start of a shape finds what the first compiled.
export TORCHINDUCTOR_CACHE_DIR=$out/inductor TRITON_CACHE_DIR=$out/triton OMP_NUM_THREADS=1

"$python" "$here/synthetic.py" "$out"
"$python" -c "from pgolf_sweep.script.bundle import bundle; import sys; sys.stdout.buffer.write(bundle())" \
    > "$out/ours.py"

shape=(VOCAB_SIZE=1024 NUM_LAYERS=9 MODEL_DIM=512 TRAIN_BATCH_TOKENS=524288 WARMUP_STEPS=5)
frontier=(VOCAB_SIZE=1024 NUM_LAYERS=11 MODEL_DIM=512 MLP_MULT=4 TRAIN_SEQ_LEN=2048
    TRAIN_BATCH_TOKENS=786432 WARMUP_STEPS=3 MLP_SLOPE=0.5 ROPE_DIMS=16 LN_SCALE=1 XSA_LAST_N=11
    NUM_LOOPS=2 ENABLE_LOOPING_AT=0 PARALLEL_START_LAYER=8 SKIP_GATES_ENABLED=1
    ATTN_GATE_ENABLED=1 SMEAR_GATE_ENABLED=1 MUON_ROW_NORMALIZE=1 POLAR_EXPRESS=1 EMA_DECAY=0.9965)
if [ "$device" = cpu ]; then
    tiny=(NUM_LAYERS=3 MODEL_DIM=32 NUM_HEADS=4 NUM_KV_HEADS=2 TRAIN_BATCH_TOKENS=512
        TRAIN_SEQ_LEN=32 VAL_BATCH_SIZE=512 LOOP_START=1 LOOP_END=1 PARALLEL_START_LAYER=2
        ROPE_DIMS=4)
    shape+=("${tiny[@]}")
    frontier+=("${tiny[@]}")
fi

# run NAME SCRIPT KNOB=VALUE...: one training; its log and its seconds from start to end.
run() {
    local name=$1 script=$2
    shift 2
    mkdir -p "$out/$name"
    local started=$SECONDS
    (cd "$out/$name" && env DATA_PATH="$out/data" TOKENIZER_PATH="$out/tokenizer.model" SEED=1337 \
        ITERATIONS="$steps" WARMDOWN_ITERS=0 VAL_LOSS_EVERY=0 TRAIN_LOG_EVERY=10 \
        MAX_WALLCLOCK_SECONDS=120 "$@" "$python" "$script") > "$out/$name.log" 2>&1
    echo "$((SECONDS - started))" > "$out/$name.seconds"
}

for round in 1 2; do
    run "ours_$round" "$out/ours.py" "${shape[@]}"
    if [ -n "$theirs" ] && [ "$device" != cpu ]; then
        run "theirs_$round" "$(realpath "$theirs")" "${shape[@]}"
    fi
done
run frontier_cold "$out/ours.py" "${frontier[@]}"
run frontier_warm "$out/ours.py" "${frontier[@]}"

"$python" "$here/summary.py" "$out"
