"""Message classes of the wire, generated from proto/ by ``make proto``. Do not edit."""
