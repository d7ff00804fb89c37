"""Inputs of many rows: frames and iterables as rows with names, the template over a row, the order of asking."""
