async def test_x(store):
    assert await store.audit_log.verify() is None
