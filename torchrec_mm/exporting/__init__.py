"""A ranker's dense part as a program that runs where neither TorchRec nor this library is.

Tables stay outside: what is looked up in them is among the program's inputs, item vectors too.

Read first: program.py
"""
