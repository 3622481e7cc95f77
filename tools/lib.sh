# shellcheck shell=bash
# What tools/serve, tools/test and tools/bench share: what has to be installed, which Rust is used, and where things are built.
# Sourced, never run. Everything it says goes to stderr.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# HOME may be empty or foreign (a container, a CI job); toolchains often lie in the home that the system knows.
user_home=$(getent passwd "$(id -u)" | cut -d: -f6)
export HOME=${HOME:-$user_home}
rust_min=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$root/Cargo.toml")

say() { printf '%s\n' "$*" >&2; }
die() {
    say "$(basename "$0"): $*"
    exit 2
}

# at_least FOUND WANTED: compares versions.
at_least() { [[ $1 && "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" == "$2" ]]; }

# rust_runs PATH: whether the Rust that PATH finds runs and is recent enough. A rustup proxy without its toolchains is on
# many a PATH and does not run.
rust_runs() {
    local version
    version=$(env PATH="$1" rustc --version 2>/dev/null | cut -d' ' -f2) || return 1
    at_least "$version" "$rust_min" && env PATH="$1" cargo --version >/dev/null 2>&1 || return 1
    [[ $purpose != test ]] || env PATH="$1" sh -c 'cargo clippy --version && cargo fmt --version' >/dev/null 2>&1
}

# Every PATH under which a Rust may be found, the likeliest first; of toolchains, nightlies last.
rust_paths() {
    local cargo_home rustup_home kind toolchain
    printf '%s\n' "$PATH" "${CARGO_HOME:-$HOME/.cargo}/bin:$PATH" "$user_home/.cargo/bin:$PATH" "/usr/bin:$PATH"
    cargo_home=$(dirname "$(dirname "$(command -v cargo || echo /usr/bin/cargo)")")
    for rustup_home in "${RUSTUP_HOME:-}" {"$HOME","$user_home","${cargo_home%/*}"}/{.rustup,rustup}; do
        for kind in 'stable-*' '[0-9]*' 'beta-*' 'nightly-*'; do
            { find "$rustup_home/toolchains" -maxdepth 1 -name "$kind" 2>/dev/null || true; } | sort -rV | while read -r toolchain; do
                printf '%s\n' "$toolchain/bin:$PATH"
            done
        done
    done
}

# Puts a Rust that runs on PATH; fails when there is none.
find_rust() {
    local path
    while read -r path; do
        if rust_runs "$path"; then
            export PATH=$path
            return 0
        fi
    done < <(rust_paths)
    return 1
}

# The Debian packages that bring a recent Rust; rustup's, when the distribution's own are too old; or nothing.
rust_packages() {
    local flavour version
    for flavour in "rustc cargo rust-clippy rustfmt" "rustc-web cargo-web rust-web-clippy rustfmt-web"; do
        version=$(apt-cache policy "${flavour%% *}" 2>/dev/null | sed -n 's/^ *Candidate: *//p')
        if at_least "${version%%[+~-]*}" "$rust_min"; then
            [[ $purpose == test ]] || flavour=${flavour% * *}
            echo "$flavour"
            return
        fi
    done
    if apt-cache show rustup >/dev/null 2>&1; then echo rustup; fi
}

have_libclang() {
    # bindgen needs the library and the compiler's own headers, which are packaged apart.
    compgen -G "${LIBCLANG_PATH:-/usr/lib/llvm-*/lib}/libclang*.so*" >/dev/null &&
        compgen -G '/usr/lib/llvm-*/lib/clang/*/include/stddef.h' >/dev/null
}

# The packages that are missing, one a line, Rust aside.
missing_packages() {
    local name
    local -A wanted=([c++]=g++ [cc]=gcc [ccache]=ccache [make]=make)
    if [[ $purpose == test ]]; then
        for name in skopeo buildah podman umoci curl jq strace zstd docker-registry shellcheck python3; do wanted[$name]=$name; done
        wanted[mkfs.ext4]=e2fsprogs wanted[mkfs.xfs]=xfsprogs wanted[mkfs.btrfs]=btrfs-progs wanted[ps]=procps wanted[ar]=binutils
    elif [[ $purpose == bench ]]; then
        for name in jq curl docker-registry gnuplot; do wanted[$name]=$name; done
        wanted[nginx]=nginx-light wanted[gnuplot]=gnuplot-nox
    fi
    for name in "${!wanted[@]}"; do
        PATH=$PATH:/usr/sbin:/sbin command -v "$name" >/dev/null || echo "${wanted[$name]}"
    done
    # PyPI's clients live in environments of their own; Debian packages the module that makes these apart.
    [[ $purpose != test ]] || python3 -c 'import ensurepip' 2>/dev/null || echo python3-venv
    have_libclang || echo libclang-dev
    [[ -e /etc/ssl/certs/ca-certificates.crt ]] || echo ca-certificates
}

# install_packages PACKAGE…: root never asks; others are asked before sudo, and told the command where nobody can answer.
install_packages() {
    local as_root=() answer
    command -v apt-get >/dev/null || die "not a Debian: install by hand what Debian calls: $*"
    local command="apt-get install -y --no-install-recommends $*"
    if [[ $(id -u) != 0 ]]; then
        if ! [[ -t 0 && -t 2 ]]; then
            say "Missing: $*. Run this, then try again:"
            say "  sudo sh -c 'apt-get update && $command'"
            exit 2
        fi
        read -rp "Missing: $*. Run 'sudo $command'? [y/N] " answer
        [[ $answer == [yY]* ]] || die "not installed: $*"
        as_root=(sudo)
        sudo apt-get -qq update >&2
    fi
    say "Installing $* …"
    # shellcheck disable=SC2086 # a list of words
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 ${command#apt-get } \
        >/dev/null || die "apt-get could not install: $*"
}

# sweep DIR: ends what was left running on a directory of our own, whoever started it, and takes down what is mounted or
# attached below it: file systems before their devices, and lazily, so that nothing hangs on what is gone.
sweep() {
    local path words mount device
    for path in /proc/[0-9]*; do
        { mapfile -d '' -t words <"$path/cmdline"; } 2>/dev/null || continue
        if [[ ${path#/proc/} != "$$" && " ${words[*]}" == *[\ =]"$1/"* ]]; then kill -KILL "${path#/proc/}" 2>/dev/null || true; fi
    done
    awk -v below="$1/" 'index($2, below) == 1 { print $2 }' /proc/mounts | tac | while read -r mount; do
        umount -l "$mount" || true
    done
    PATH=$PATH:/usr/sbin:/sbin losetup -l -n -O NAME,BACK-FILE 2>/dev/null | grep -F " $1/" | while read -r device _; do
        PATH=$PATH:/usr/sbin:/sbin losetup -d "$device" || true
    done || true
}

purpose=build

# prepare build|test|bench: installs what is missing for that purpose, finds Rust, and sets the environment of the build.
prepare() {
    purpose=$1
    local packages
    mapfile -t packages < <(missing_packages)
    if ! find_rust || ((${#packages[@]})); then
        # Without fresh lists apt offers versions that are gone, and old Rusts.
        [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null || apt-get -qq update >&2 || say "apt-get update failed; going on"
        # shellcheck disable=SC2207 # a list of words
        find_rust || packages+=($(rust_packages))
        ((${#packages[@]} == 0)) || install_packages "${packages[@]}"
        find_rust || install_toolchain
    fi
    if command -v ccache >/dev/null; then
        # RocksDB is a quarter of an hour of C++ on two cores: its objects are kept where no clone and no clean reaches.
        export CCACHE_DIR=${CCACHE_DIR:-$HOME/.cache/orlop-ccache}
        [[ ${CXX:-} == ccache* ]] || export CXX="ccache ${CXX:-c++}"
        [[ ${CC:-} == ccache* ]] || export CC="ccache ${CC:-cc}"
    fi
    local target=$root/target
    [[ ${CI:-} != true ]] || target=$HOME/.cache/orlop-target
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$target}
}

# The last resort: a rustup that has no toolchain, or words.
install_toolchain() {
    if command -v rustup >/dev/null; then
        say "Installing a Rust toolchain by rustup …"
        rustup toolchain install stable --profile minimal --component clippy,rustfmt >&2 && find_rust && return
    fi
    die "needs Rust $rust_min or newer, and the distribution has none; install it, then try again:
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
}

# build ARG…: cargo build of the release binaries, from any directory.
build() { cargo build --release --locked --manifest-path "$root/Cargo.toml" "$@"; }
