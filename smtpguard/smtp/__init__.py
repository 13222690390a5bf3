"""The side of the applications: aiosmtpd, tamed."""
