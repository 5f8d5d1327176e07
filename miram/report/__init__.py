"""What people read: tables, figures and the report page, from files alone."""
