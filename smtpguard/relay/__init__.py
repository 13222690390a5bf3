"""The smarthost: an asyncio SMTP client and its pool."""
