"""The protocol as a state machine: no Twisted, no clock, no disk, no OpenSSL."""
