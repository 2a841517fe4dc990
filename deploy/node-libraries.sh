#!/bin/sh
# Node itself needs libatomic since version 25, and a minimal Debian does not have it. npm runs this before start, test,
# build and example, with the Node of node_modules first in PATH: as root on Debian it installs the library, saying so;
# elsewhere it prints the command. With the library there it does nothing. Anything else Node says for itself.

missing() {
  case $(node --version 2>&1) in
    *libatomic.so.1*) return 0 ;;
    *) return 1 ;;
  esac
}

missing || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
  echo "ledge: libatomic is missing; Node needs it. Installing it: apt-get install libatomic1" >&2
  export DEBIAN_FRONTEND=noninteractive
  install() { apt-get --quiet=2 install --yes --no-install-recommends libatomic1 > /dev/null; }
  # A fresh container image has no package lists, and one that has them need not download them again.
  install 2> /dev/null || { apt-get --quiet=2 update && install; }
  missing || exit 0
fi

echo "ledge: Node does not start here: libatomic.so.1 is missing. Install it, then try again:" >&2
echo "  sudo apt-get install libatomic1    (Debian, Ubuntu)" >&2
echo "  sudo dnf install libatomic         (Fedora, RHEL)" >&2
echo "  sudo zypper install libatomic1     (openSUSE)" >&2
exit 1
