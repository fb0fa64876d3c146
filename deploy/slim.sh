#!/usr/bin/env bash
# The diet of the image: delete from site-packages what no job imports or loads. The Dockerfile runs it in the layer
# that installs the packages, because a later layer would only hide the files.
#
#   deploy/slim.sh jobs|cluster SITE_PACKAGES
#
# It prints what each step saves. The figures beside the steps are MB of disk from such a build (x86-64).
set -euo pipefail
shopt -s nullglob
part=$1
cd "$2"

used() { du -sk . | cut -f1; }
# step NAME COMMAND...: run the command, print the megabytes that it gave back.
step() {
  local name=$1 before after
  shift
  before=$(used)
  "$@"
  after=$(used)
  awk -v name="$name" -v kb=$((before - after)) 'BEGIN { printf "slim: %6.1f MB  %s\n", kb / 1024, name }'
}
# Wheels hold no links: a library and its versioned names are whole copies. Keep one, link the others.
link_copies() {
  local one same
  for one in "$1"/lib*.so; do
    for same in "$one".*; do
      if cmp -s "$one" "$same"; then ln -sf "$(basename "$one")" "$same"; fi
    done
  done
}

slim_jobs() {
  local plugins='.*(gpu|npu|auto|hetero|onnx|paddle|tensorflow|tensorflow_lite|jax|gguf)_?(batch|frontend)?.*\.so.*'
  step "torch: headers and CMake files for C++ extensions" rm -rf torch/include torch/share
  step "torch: its own tests, C++ and Python" rm -rf torch/test torch/lib/*_test.so torch/lib/libbackend_with_compiler.so
  step "torch: programs for developers (torch_shm_manager stays: shared memory)" \
    find torch/bin -type f -not -name torch_shm_manager -delete
  # torch.testing itself is imported by torch.autograd.gradcheck.
  step "torch: inputs for the tests of operators" rm -rf torch/testing/_internal/{distributed,generated,opinfo} \
    torch/testing/_internal/common_{methods_invocations,modules,nn}.py
  step "openvino: headers and CMake files" rm -rf openvino/include openvino/cmake openvino/libs/cache.json
  step "openvino: plugins for other devices, readers of other formats" \
    find openvino/libs -regextype egrep -regex "$plugins" -delete
  step "gdcm: programs and data; the wrapper and its libraries stay" \
    find _gdcm -maxdepth 1 -name 'gdcm*' ! -name '*.py' -exec rm -rf {} +
  step "gdcm: copies of its libraries become links" link_copies _gdcm
  step "matplotlib: sample data, fonts of PostScript and PDF" rm -rf matplotlib/mpl-data/sample_data \
    matplotlib/mpl-data/fonts/{afm,pdfcorefonts}
  step "networkx, sympy/physics: only torch.compile and its like import them" rm -rf networkx sympy/physics
  step "pydicom: test files and structured reports" rm -rf pydicom/data/test_files pydicom/sr
  step "hf_xet: a way to download; the image is offline" rm -rf hf_xet
  step "setuptools: nothing is built in the image" rm -rf setuptools _distutils_hack distutils-precedence.pth
  step "tests of the other packages" \
    find . -type d '(' -name tests -o -name test ')' -not -path './torch/*' -prune -exec rm -rf {} +
  step "static libraries and type stubs" find . '(' -name '*.a' -o -name '*.pyi' ')' -delete
}

slim_cluster() {
  step "ray: reinforcement learning, Java, the dashboard's pages, tests" rm -rf ray/rllib ray/jars ray/dashboard/client ray/tests
  step "pyarrow: headers, tests, Flight" rm -rf pyarrow/include pyarrow/tests pyarrow/libarrow_flight* pyarrow/_flight*
  step "pyarrow: copies of its libraries become links" link_copies pyarrow
  step "type stubs" find . -name '*.pyi' -delete
}

case $part in
jobs) slim_jobs ;;
cluster) slim_cluster ;;
*) echo "usage: deploy/slim.sh jobs|cluster SITE_PACKAGES" >&2; exit 2 ;;
esac
