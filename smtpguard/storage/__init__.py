"""The store: SQLAlchemy Core on SQLite and PostgreSQL. It takes and gives domain values; rows never leave it."""
