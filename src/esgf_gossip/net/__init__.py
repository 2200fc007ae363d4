"""The Twisted shell: links, dialling, and the driver that carries out effects."""
