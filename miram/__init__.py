"""miram: reproduce, check and extend MIRAM, self-supervised learning for mammography (arXiv 2503.07157)."""

__version__ = "0.1.0"
