"""HTTP: the API for other systems, health and metrics, on Litestar and uvicorn.

Loaded only where there is something to serve: the two take memory and time that a guard without them need not spend.
"""
