from llm_magic.close_matches import close_matches, did_you_mean


def test_did_you_mean() -> None:
    assert did_you_mean("exprot", ["export", "import", "show"]) == "Did you mean export?"
    assert did_you_mean("zzz", ["export"]) == ""


def test_a_name_is_not_offered_in_its_own_place() -> None:
    assert did_you_mean("q", ["q", "quick"], "Say provider:model.") == "Say provider:model."


def test_the_least_likeness_can_be_set() -> None:
    assert close_matches("token", ["tokenizer"]) == ["tokenizer"]
    assert close_matches("token", ["tokenizer"], cutoff=0.8) == []
