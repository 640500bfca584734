from pathlib import Path

SHEETS = Path(__file__).parents[3] / "../shared/protocols"
# The sheets and captures are not ours to carry; what needs them is collected where they are.
collect_ignore = [] if SHEETS.is_dir() else ["test_captures.py", "test_golden.py", "test_tables.py"]
