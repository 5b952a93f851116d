#!/bin/sh
# What the image's build stages run, one after the other, and docker/check_install.sh in the same order:
#
#   docker/install.sh torch-cpu FOLDER     torch's CPU build into a new virtual environment
#   docker/install.sh torch-cuda FOLDER    torch's default build (CUDA, with all that it needs but the driver)
#   docker/install.sh deca-node FOLDER     the rest, and this project from the working directory
#
# torch is a step of its own because it is nearly all of the image, and rarely changes.
# TORCH_INDEX names one more package index to look for torch in.
set -eu

step=$1
folder=$2

pip() {
    "$folder/bin/python" -m pip --disable-pip-version-check --no-input install --no-cache-dir "$@"
}

torch_version() {
    sed -n 's/^torch==//p' constraints.txt
}

case $step in
torch-cpu)
    python3 -m venv "$folder"
    # Without its dependencies, which come from the usual index in the last step.
    pip --no-deps ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "torch==$(torch_version)+cpu"
    ;;
torch-cuda)
    python3 -m venv "$folder"
    pip --constraint constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "torch==$(torch_version)"
    ;;
deca-node)
    pip --constraint constraints.txt .
    # Without a compiler the codec would be left out without a word; in an image it belongs.
    "$folder/bin/python" -c "import glob, sys, sysconfig
sys.exit(not glob.glob(sysconfig.get_path('purelib') + '/deca_node/numerics/codecs/_codec*.so'))" ||
        { echo "the codec was not compiled; is there a C compiler?" >&2; exit 1; }
    # Nothing is installed into a finished image.
    "$folder/bin/python" -m pip --disable-pip-version-check --no-input uninstall --yes pip
    ;;
*)
    echo "unknown step: $step" >&2
    exit 2
    ;;
esac
