"""One prompt over many inputs: rows in, requests side by side within limits, answers in the rows' order.

```
input ─inputs→ Row, Row …      template over a row ─prompt→ parts      plan of all + parts ─session→ request of a row
request ─store→ known answer, or ─wire→ answer ─output→ value      Outcome, Outcome … ─answers→ Answers, or a frame
```
"""
