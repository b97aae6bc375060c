"""Everything that decides: pure functions over frozen values. Imports the standard library and orjson."""
