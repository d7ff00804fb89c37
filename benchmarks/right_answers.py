"""How often a small model is right, asked for a typed value and asked for prose: 40 small questions of four kinds.

Run: python benchmarks/right_answers.py [MODEL]; the default is the embedded model. Target: of each kind, typed values
are right at least as often as prose. A typed value is compared here; the prose is printed, to be read by a person.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import pydantic

from llm_magic import LLM, LLMError


class Person(pydantic.BaseModel):
    name: str
    age: int


class City(pydantic.BaseModel):
    name: str
    country: str


class Item(pydantic.BaseModel):
    product: str
    price: float


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked, the options of its output type, and the right value."""

    kind: str
    prompt: str
    options: dict[str, Any]
    right: Any


def _questions() -> list[Question]:
    numbers = {
        "How many legs does a cat have?": 4,
        "How many days are in a week?": 7,
        "What is 2 + 2?": 4,
        "What is 3 + 5?": 8,
        "How many wheels does a car have?": 4,
        "How many months are in a year?": 12,
        "How many hours are in a day?": 24,
        "How many legs does a spider have?": 8,
        "In which year did the Second World War end?": 1945,
        "Tom has 3 apples and buys 2 more. How many apples does he have?": 5,
        "How many sides does a triangle have?": 3,
        "How many minutes are in an hour?": 60,
    }
    truths = {
        "Is Paris the capital of France?": True,
        "Is the sun a planet?": False,
        "Is water wet?": True,
        "Can a dog fly?": False,
        "Is ten greater than five?": True,
        "Is ice hot?": False,
        "Do fish live in water?": True,
        "Is a tomato an animal?": False,
    }
    choices = {
        "Review: 'I loved this film, it was wonderful.' Is it positive or negative?": "*positive,negative",
        "Review: 'The worst meal I ever had. Terrible.' Is it positive or negative?": "positive,*negative",
        "Is ice hot or cold?": "hot,*cold",
        "Is a dog an animal, a plant or a mineral?": "*animal,plant,mineral",
        "Does the sun shine by day or by night?": "*day,night",
        "Which language is spoken in Germany?": "French,Spanish,*German",
        "Is an elephant big or small?": "*big,small",
        "Which color is grass?": "red,*green,blue",
        "Is Berlin a city?": "*yes,no",
        "Is an apple a fruit or a vegetable?": "*fruit,vegetable",
    }
    records: dict[str, pydantic.BaseModel] = {
        "Anna is 34 years old. Extract her name and age.": Person(name="Anna", age=34),
        "My name is Tom and I am 12 years old.": Person(name="Tom", age=12),
        "Extract name and age: Maria, aged 56, lives in Rome.": Person(name="Maria", age=56),
        "Peter turned 40 last week. Who is it, and how old?": Person(name="Peter", age=40),
        "Paris is the capital of France. Extract the city and its country.": City(name="Paris", country="France"),
        "Tokyo is in Japan. Which city, which country?": City(name="Tokyo", country="Japan"),
        "Lima lies in Peru. Extract city and country.": City(name="Lima", country="Peru"),
        "A cup of coffee costs 3.50 dollars. Extract product and price.": Item(product="coffee", price=3.5),
        "The book is sold for 20 dollars. What is the product and its price?": Item(product="book", price=20),
        "Bread: 2.25 dollars. Extract product and price.": Item(product="bread", price=2.25),
    }
    return [
        *(Question("int", prompt, {"output_type": int}, right) for prompt, right in numbers.items()),
        *(Question("bool", prompt, {"output_type": bool}, right) for prompt, right in truths.items()),
        *(
            Question("choices", prompt, {"choices": words.replace("*", "").split(",")}, _starred(words))
            for prompt, words in choices.items()
        ),
        *(Question("record", prompt, {"output_type": type(right)}, right) for prompt, right in records.items()),
    ]


def _starred(words: str) -> str:
    return next(word[1:] for word in words.split(",") if word.startswith("*"))


def is_right(value: Any, right: Any) -> bool:
    """Whether a value is the right one; texts of records whatever their case, a product also with its article."""
    if not isinstance(right, pydantic.BaseModel):
        return bool(value == right)
    return all(
        str(wanted).lower() == str(getattr(value, name, None)).lower().removeprefix("a ").removeprefix("the ")
        or (name == "product" and wanted in str(getattr(value, name, None)).lower())
        for name, wanted in right
    )


def main() -> None:
    model = sys.argv[1] if len(sys.argv) > 1 else "local:smollm2"
    llm = LLM(model, temperature=0, max_tokens=60)
    score: dict[str, list[bool]] = {}
    for question in _questions():
        try:
            value: Any = llm.ask(question.prompt, **question.options).value
        except LLMError as error:
            value = error
        right = is_right(value, question.right)
        score.setdefault(question.kind, []).append(right)
        print(f"{question.kind:<8}{'right' if right else 'WRONG':<6} {question.prompt}")
        print(f"              typed: {value!r}")
        print(f"              prose: {' '.join(llm.ask(question.prompt).text.split())}")
    print("typed values that are right:", ", ".join(f"{kind} {sum(of)} of {len(of)}" for kind, of in score.items()))


if __name__ == "__main__":
    main()
