"""What holds of the ARM program alone: `make edge-arm`."""

import subprocess

from emulators import AARCH64


def test_the_program_is_one_arm_file():
    program = AARCH64.command("autodeco-cli")[-1]
    kind = subprocess.run(["readelf", "-hl", program], capture_output=True, text=True, check=True).stdout
    assert "AArch64" in kind
    assert "INTERP" not in kind  # needs no loader and no library
