"""Who may speak: certificates, verdicts, signatures, TLS contexts; the only importer of cryptography and OpenSSL."""
