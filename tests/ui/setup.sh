#!/bin/sh
# A browser for the tests: Debian's Chromium, unless some Chromium or Chrome is there.
set -eu
for name in chromium chromium-browser google-chrome; do
	if command -v "$name" > /dev/null; then exit 0; fi
done
if command -v apt-get > /dev/null && [ "$(id -u)" = 0 ]; then
	apt-get update -q && apt-get install -qy chromium
else
	echo "The browser tests need Chromium: install it (sudo apt-get install chromium) and run this again." >&2
	exit 1
fi
