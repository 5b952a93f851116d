#!/bin/sh
# The steps of the image's build stages. docker/check_install.sh takes them in the same order.
#
#   docker/install.sh tools FOLDER              pip and what pyproject.toml builds with, beside FOLDER
#   docker/install.sh codec FOLDER [ROOT]       the compiled codec from the C sources; it goes below ROOT
#   docker/install.sh torch-cpu FOLDER          torch's CPU build into a new virtual environment
#   docker/install.sh torch-cuda FOLDER         torch's default build (CUDA, with all that it needs but the driver)
#   docker/install.sh dependencies FOLDER       the other packages that pyproject.toml names
#   docker/install.sh project FOLDER [ROOT]     this project from the working directory; its files go below ROOT
#
# torch is nearly all of the image and rarely changes. The project comes last, because it always changes; its step
# downloads and compiles nothing. pip is not in the environment, because nothing is installed into a finished image.
# TORCH_INDEX names one more package index with torch.
set -eu

step=$1
folder=$2
root=${3:-/}

pip() {
    "$folder-pip/bin/python" -m pip --python "$folder/bin/python" --disable-pip-version-check --no-input \
        install --no-cache-dir "$@"
}

# The packages in a list of pyproject.toml, one per word; the list is named by table and key.
named() {
    python3 -c "import sys, tomllib
for needed in tomllib.load(open('pyproject.toml', 'rb'))[sys.argv[1]][sys.argv[2]]:
    print(needed.replace(' ', ''))" "$@"
}

torch_version() {
    sed -n 's/^torch==//p' constraints.txt
}

# The folder of packages within FOLDER, which need not exist yet.
purelib() {
    python3 -c "import sys, sysconfig
print(sysconfig.get_path('purelib', 'venv', {'base': sys.argv[1]}))" "$folder"
}

# Removes headers, test programs and test suites: a fifth of torch's CPU build, and not needed at run time.
trim() {
    packages=$("$folder/bin/python" -c "import sysconfig; print(sysconfig.get_path('purelib'))")
    rm -rf "$packages/torch/include" "$packages/torch/test" "$packages"/torch/bin/protoc* "$packages"/torch/bin/test_*
    find "$packages" -type d -name tests -path "*/$1/*" -prune -exec rm -rf {} +
}

case $step in
tools)
    python3 -m venv "$folder-pip"
    # One word per requirement is intended; none has a space.
    # shellcheck disable=SC2046
    "$folder-pip/bin/python" -m pip --disable-pip-version-check --no-input install --no-cache-dir \
        $(named build-system requires)
    ;;
codec)
    # Without debug information, which is two thirds of the library. Without a compiler this fails.
    CFLAGS=-g0 "$folder-pip/bin/python" tools/build_native.py --into "${root%/}$(purelib)"
    ;;
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
    pip --constraint constraints.txt $(named project dependencies)
    for package in numpy scipy sympy networkx; do trim "$package"; done
    ;;
project)
    # The codec has a step of its own. Without a compiler, pip leaves it out.
    wheels=$(mktemp -d)
    CC=false "$folder-pip/bin/python" -m pip --disable-pip-version-check --no-input \
        wheel --no-deps --no-build-isolation --wheel-dir "$wheels" .
    pip --no-deps --no-compile --force-reinstall --no-warn-script-location --root "$root" "$wheels"/*.whl
    rm -r "$wheels"
    # Byte code for what every command and every health check imports. What is imported beside torch, which takes far
    # longer, has none: it would be a quarter of the layer that every changed line makes anew.
    "$folder/bin/python" -m compileall -q -x '/deca_node/(numerics|lab)/' -s "$root" -p / "${root%/}$(purelib)/deca_node"
    ;;
*)
    echo "unknown step: $step" >&2
    exit 2
    ;;
esac
