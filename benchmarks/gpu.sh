#!/bin/sh
# Everything that only a GPU can tell, in eight minutes, on a bare machine without a network.
#
#     benchmarks/gpu.sh FIGURES.json [WHEELS]     # WHEELS: a folder with what python3 lacks, default .whl
#     benchmarks/gpu.sh --rehearse FIGURES.json   # the same path on a CPU with tiny shapes
#     python benchmarks/gpu_table.py FIGURES.json # the tables of docs/benchmarks.md
#
# Run it in the repository's root. Every part appends its figures to FIGURES.json as it ends and is stopped when its
# time is over; the next one begins in any case. PARTS="probes sd15" runs some of them, PYTHON names an interpreter.
set -u
rehearsed=
if [ "${1:-}" = --rehearse ]; then rehearsed=1; shift; fi
figures=${1:?say where the figures go: benchmarks/gpu.sh FIGURES.json}
wheels=${2:-.whl}
python=${PYTHON:-python3}
parts=${PARTS:-probes sd15 sdxl sana demo look flux}
end=$(($(date +%s) + ${SECONDS_IN_ALL:-480}))

if ls "$wheels"/*.whl >/dev/null 2>&1; then
  site=$(mktemp -d)
  "$python" -m pip install -q --no-index --no-deps --no-compile --target "$site" "$wheels"/*.whl || exit
  PYTHONPATH=$site:${PYTHONPATH:-}
fi
export PYTHONPATH="$PWD/src:${PYTHONPATH:-}" PYTHONUNBUFFERED=1

# part SECONDS COMMAND...: at most so long, and never beyond the end of all
part() {
  left=$((end - $(date +%s))); limit=$1; shift
  [ "$limit" -lt "$left" ] || limit=$left
  if [ "$limit" -lt 5 ]; then echo "== no time left for: $*"; return; fi
  echo "== $* (at most $limit s, $left s left)"
  timeout "$limit" "$@" || echo "== ended with $? : $*"
}

small="generate.images_per_prompt=2 evaluate.images_per_prompt=2 probe.min_per_option=2 model.num_steps=4"
small="$small method.last_step=null"
if [ "$rehearsed" ]; then
  device=cpu; full="--dtype float32 --steps 2 --batch 1 --rounds 1 --tiny"; probes=--small; look=--small
  demo="compute.device=cpu $small"
else
  device=cuda; full="--steps 20 --rounds 4"; probes="--width 1280 --rounds 2 --oracle-layers 1"; look="--rounds 5"
  demo=compute.device=cuda
fi
check="import torch; torch.ones(1, device='$device').sum().item(); from icm_pipeline import record, steer"
timeout 60 "$python" -c "$check; import diffusers, hydra, sklearn" || exit
for name in $parts; do
  case $name in
    probes) part 150 "$python" benchmarks/probes.py $probes --device "$device" --figures "$figures" ;;
    look) part 90 "$python" benchmarks/look.py $look --device "$device" --figures "$figures" ;;
    demo) part 120 "$python" benchmarks/demo.py $demo --figures "$figures" ;;
    *) part 200 "$python" benchmarks/full_size.py --models "$name" --device "$device" $full --figures "$figures" ;;
  esac
done
