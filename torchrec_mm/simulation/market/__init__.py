"""A simulated market: what is in stock, who comes, what is shown, clicked, searched and bought.

Constants of the click rule decide what item vectors can gain: the README's figures depend on
them and on the order of random draws.

Read first: clicks.py, the rule; market.py puts all together.
"""
