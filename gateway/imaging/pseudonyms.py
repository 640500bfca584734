"""Values that stand for others: the same secret and the same original always give the same one, and nothing leads back.

All are made by HMAC-SHA-256 under the route's secret. UIDs become UUIDs under the root 2.25 (PS3.5, B.2).
"""

import hashlib
import hmac
import uuid
from datetime import datetime, timedelta

SHIFT_DAYS_MAX = 3650
NAME_DIGITS = 12
TEXT_DIGITS = 16  # fits every short string


class Pseudonyms:
    """Made of one secret."""

    def __init__(self, secret: str) -> None:
        self._key = secret.encode()

    def uid(self, original: str) -> str:
        """Return the UID that takes the place of another one."""
        return f"2.25.{uuid.UUID(bytes=self._digest('uid', original)[:16], version=5).int}"

    def text(self, original: str, vr: str) -> str:
        """Return what takes the place of a value, in the form that its value representation has."""
        if vr == "UI":
            return self.uid(original)
        digest = self._digest("text", original).hex().upper()
        if vr == "PN":
            return f"ANON^{digest[:NAME_DIGITS]}"
        if vr == "IS":
            return str(int(digest[:7], 16))
        if vr in ("DS", "US", "SS", "UL", "SL", "UV", "SV"):
            return str(int(digest[:3], 16))
        return digest[:TEXT_DIGITS]

    def shifted_days(self, patient_id: str) -> int:
        """Return by how many days, 1 to ten years, all dates of one patient go back."""
        return 1 + int.from_bytes(self._digest("days", patient_id)[:4], "big") % SHIFT_DAYS_MAX

    def _digest(self, purpose: str, original: str) -> bytes:
        return hmac.new(self._key, f"{purpose}\0{original}".encode("utf-8", "surrogatepass"), hashlib.sha256).digest()


def shifted(value: str, vr: str, days: int) -> str | None:
    """Return a DA or DT so many days earlier, a TM as it is; None for what is no date."""
    if vr == "TM":
        return value
    text = value.strip(" \0")
    try:
        date = datetime.strptime(text[:8], "%Y%m%d")
        return (date - timedelta(days=days)).strftime("%Y%m%d").rjust(8, "0") + (text[8:] if vr == "DT" else "")
    except (ValueError, OverflowError):
        return None
