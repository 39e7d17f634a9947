"""What objects are: structs, defaults, validation, printed columns, patches. Pure; knows no server."""
