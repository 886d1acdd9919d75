"""The only door to a model. `base` is the contract; `local`, `openai` and `scripted` are the models behind it;
`cached` remembers answers; `yes_no` reads probabilities from them; `serve` starts a server to talk to."""
