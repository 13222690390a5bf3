"""The recipients' pages: to say whether a mailbox is one's own, and to stop what is not meant for one."""
