#!/bin/sh
# The steps of the image's build stages. docker/check_install.sh takes them in the same order.
#
#   docker/install.sh torch-cpu FOLDER          torch's CPU build into a new virtual environment
#   docker/install.sh torch-cuda FOLDER         torch's default build (CUDA, with all that it needs but the driver)
#   docker/install.sh dependencies FOLDER       the other packages that pyproject.toml names
#   docker/install.sh project FOLDER [ROOT]     this project from the working directory; its files go below ROOT
#
# torch comes first, because it is nearly all of the image and rarely changes. The project comes last, because it always
# changes. pip is not in the environment, because nothing is installed into a finished image.
# TORCH_INDEX names one more package index with torch.
set -eu

step=$1
folder=$2
root=${3:-/}

pip() {
    [ -e "$folder-pip" ] || python3 -m venv "$folder-pip"
    "$folder-pip/bin/python" -m pip --python "$folder/bin/python" --disable-pip-version-check --no-input \
        install --no-cache-dir "$@"
}

torch_version() {
    sed -n 's/^torch==//p' constraints.txt
}

# Removes headers, test programs and test suites: a fifth of torch's CPU build, and not needed at run time.
trim() {
    packages=$("$folder/bin/python" -c "import sysconfig; print(sysconfig.get_path('purelib'))")
    rm -rf "$packages/torch/include" "$packages/torch/test" "$packages"/torch/bin/protoc* "$packages"/torch/bin/test_*
    find "$packages" -type d -name tests -path "*/$1/*" -prune -exec rm -rf {} +
}

case $step in
torch-cpu)
    python3 -m venv --without-pip "$folder"
    # The next step installs its dependencies from the usual index.
    pip --no-deps ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "torch==$(torch_version)+cpu"
    trim torch
    ;;
torch-cuda)
    python3 -m venv --without-pip "$folder"
    pip --constraint constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "torch==$(torch_version)"
    trim torch
    ;;
dependencies)
    # One word per requirement is intended; none has a space.
    # shellcheck disable=SC2046
    pip --constraint constraints.txt $("$folder/bin/python" -c "import tomllib
for needed in tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies']:
    print(needed.replace(' ', ''))")
    for package in numpy scipy sympy networkx; do trim "$package"; done
    ;;
project)
    pip --no-deps --root "$root" .
    # Without a compiler, pip would leave the codec out silently; an image must have it.
    "$folder/bin/python" -c "import glob, sys, sysconfig
sys.exit(not glob.glob(sys.argv[1] + sysconfig.get_path('purelib') + '/deca_node/numerics/codecs/_codec*.so'))" \
        "${root%/}" || { echo "the codec was not compiled; is there a C compiler?" >&2; exit 1; }
    ;;
*)
    echo "unknown step: $step" >&2
    exit 2
    ;;
esac
