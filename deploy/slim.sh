#!/usr/bin/env bash
# The diet of the image: delete from site-packages what no job imports or loads. The Dockerfile runs it in the layer
# that installs the packages, because a later layer would only hide the files.
#
#   deploy/slim.sh jobs|cluster SITE_PACKAGES
#
# It prints what each step saves. The figure above a step is from such a build (x86-64); the steps of the cluster
# have none yet.
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
  # 61.7 MB
  step "torch: headers and CMake files for C++ extensions" rm -rf torch/include torch/share
  # 83.7 MB
  step "torch: its own tests, C++ and Python" rm -rf torch/test torch/lib/*_test.so torch/lib/libbackend_with_compiler.so
  # 49.4 MB
  step "torch: programs for developers (torch_shm_manager stays: shared memory)" \
    find torch/bin -type f -not -name torch_shm_manager -delete
  # torch.testing itself is imported by torch.autograd.gradcheck.
  # 3.8 MB
  step "torch: inputs for the tests of operators" rm -rf torch/testing/_internal/{distributed,generated,opinfo} \
    torch/testing/_internal/common_{methods_invocations,modules,nn}.py
  # 13.2 MB
  step "openvino: headers and CMake files" rm -rf openvino/include openvino/cmake openvino/libs/cache.json
  # 67.9 MB
  step "openvino: plugins for other devices, readers of other formats" \
    find openvino/libs -regextype egrep -regex "$plugins" -delete
  # 1.1 MB
  step "gdcm: programs and data; the wrapper and its libraries stay" \
    find _gdcm -maxdepth 1 -name 'gdcm*' ! -name '*.py' -exec rm -rf {} +
  # 20.0 MB
  step "gdcm: copies of its libraries become links" link_copies _gdcm
  # 2.0 MB
  step "matplotlib: sample data, fonts of PostScript and PDF" rm -rf matplotlib/mpl-data/sample_data \
    matplotlib/mpl-data/fonts/{afm,pdfcorefonts}
  # 20.7 MB
  step "fontTools: all but the names of glyphs, which matplotlib imports; the rest serves PDF and PostScript" \
    find fontTools -mindepth 1 '(' -type d -not -name misc -o -name '*.so' ')' -prune -exec rm -rf {} +
  # 4.4 MB
  step "pygments: lexers; no job colours source code" rm -rf pygments/lexers
  # 8.7 MB
  step "torchvision: native operators of object detection" rm -f torchvision/_C.so
  # 14.1 MB
  step "networkx, parts of sympy: only torch.compile and its like import them" rm -rf networkx sympy/{physics,stats}
  # 0.7 MB
  step "scikit-learn: sample data" rm -rf sklearn/datasets/{data,descr,images}
  # 6.1 MB
  step "pydicom: test files and structured reports" rm -rf pydicom/data/test_files pydicom/sr
  # 10.9 MB
  step "hf_xet: a way to download; the image is offline" rm -rf hf_xet
  # 3.8 MB
  step "setuptools: nothing is built in the image" rm -rf setuptools _distutils_hack distutils-precedence.pth
  # 61.5 MB
  step "tests of the other packages" \
    find . -type d '(' -name tests -o -name test ')' -not -path './torch/*' -prune -exec rm -rf {} +
  # 6.5 MB
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
