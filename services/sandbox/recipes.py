"""Every record type of the sandbox, in an order in which each refers only to those before it."""

from services.sandbox.recipe import Recipe
from services.sandbox.recipes_customers import CUSTOMERS
from services.sandbox.recipes_setup import SETUP
from services.sandbox.recipes_work import (
    PROJECT_TICKET_NOTES,
    PROJECT_TICKETS,
    PROJECT_TICKETS_PATH,
    SERVICE_TICKETS_PATH,
    TICKET_NOTES_PATH,
    WORK,
)

RECIPES: tuple[Recipe, ...] = SETUP + CUSTOMERS + WORK
BY_PATH: dict[str, Recipe] = {recipe.path: recipe for recipe in RECIPES}

__all__ = [
    "BY_PATH",
    "PROJECT_TICKETS",
    "PROJECT_TICKETS_PATH",
    "PROJECT_TICKET_NOTES",
    "RECIPES",
    "SERVICE_TICKETS_PATH",
    "TICKET_NOTES_PATH",
]
