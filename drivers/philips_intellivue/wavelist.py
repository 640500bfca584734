"""Names of waves in the configuration, and what a monitor lets be asked for (sheet section 12.6; guide p. 286, 287)."""

from drivers.philips_intellivue.codes import physio_named, physio_of_key

ECG_COMPOUND = 0x0100
ECG_SINGLE = range(0x0101, 0x014D)
SINGLE_ECG_MAX, OTHERS_MAX = 3, 8
_PHYSIO_MAX = 0xFFFF


def physio_of(name: str) -> int:
    """Return the physio id of a wave's name. Raises ValueError for a name that says nothing.

    A name is one of ours (`ecg-ii`, `pleth`, or the key `ecg_wave_ii`), the vendor's (`NOM_PLETH`, `Pleth`) or a number
    in hex (`0x4BB4`).
    """
    if name.lower().startswith("0x"):
        try:
            number = int(name, 16)
        except ValueError:
            number = -1
        if 0 <= number <= _PHYSIO_MAX:
            return number
    plain = name.lower().replace("-", "_")
    for key in (plain, f"{plain}_wave", plain.replace("ecg_", "ecg_wave_", 1)):
        if (physio := physio_of_key(key)) is not None:
            return physio
    if (physio := physio_named(name)) is not None:
        return physio
    raise ValueError(
        f"unknown wave {name!r}: expected a name such as ecg-ii, pleth, abp, resp, co2, or 0x and a number"
    )


def physios_of(names: tuple[str, ...]) -> tuple[int, ...]:
    """Return the physio ids of a list of waves. Raises ValueError for what a monitor would leave out in silence."""
    physios = tuple(dict.fromkeys(physio_of(name) for name in names))
    ecg = [physio for physio in physios if physio in ECG_SINGLE]
    others = len(physios) - len(ecg) - (ECG_COMPOUND in physios)
    if len(ecg) > SINGLE_ECG_MAX or (ecg and ECG_COMPOUND in physios):
        raise ValueError(
            f"a monitor sends {SINGLE_ECG_MAX} single ECG waves or the compound one (ecg), not both or more"
        )
    if others > OTHERS_MAX:
        raise ValueError(f"a monitor sends {OTHERS_MAX} waves beside the ECG, not {others}")
    return physios
