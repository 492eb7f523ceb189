#!/bin/sh
# Every check and test: bundle, types, lint (the floors too), format, jest (arguments go there). `npm test`.
# Ends with one line, `N passed, N failed`.
set -u
cd "$(dirname "$0")/.."
export PATH="$PWD/node_modules/.bin:$PATH"

# What the tests compare us with, and make their input by.
packages='busybox-static docker-registry apache2-utils skopeo umoci buildah podman crun runc mmdebstrap bash-static libcap2-bin attr
  zstd xz-utils bzip2 openssl strace procps git e2fsprogs mount uidmap'

missing=
for package in $packages; do
  status=$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null)
  [ "$status" = installed ] || missing="$missing $package"
done
if [ -n "$missing" ]; then
  if [ "$(id -u)" != 0 ]; then
    echo "These Debian packages are missing, and only root can install them: apt-get install$missing" >&2
    exit 1
  fi
  echo "== Installing Debian packages that the tests need:$missing"
  export DEBIAN_FRONTEND=noninteractive
  # shellcheck disable=SC2086 -- a list of words
  { apt-get update -q && apt-get install -q -y --no-install-recommends $missing; } || exit 1
fi

passed=0
failed=0
check() {
  echo "== $1"
  shift
  if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}
check Bundle node build.ts
check Types tsc --noEmit
check 'Lint and floors' oxlint --type-aware --deny-warnings
check Format oxfmt --check '**/*.ts' '**/*.js'

echo '== Tests'
results=$(mktemp)
trap 'rm -f "$results"' EXIT
node --experimental-vm-modules --disable-warning=ExperimentalWarning node_modules/jest/bin/jest.js \
  --json --outputFile "$results" "$@"
jest=$?
# A file that could not be run counts as a failed test.
counts=$(node -p '
  const { numPassedTests, numFailedTests, numRuntimeErrorTestSuites } = JSON.parse(fs.readFileSync(process.argv[1]))
  numPassedTests + " " + (numFailedTests + numRuntimeErrorTestSuites)
' "$results") || counts='0 1'
passed=$((passed + ${counts% *}))
failed=$((failed + ${counts#* }))
[ "$jest" = 0 ] || [ "$failed" != 0 ] || failed=1

echo
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
