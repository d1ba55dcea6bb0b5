"""The day of an environment: start, watch and stop it, by Airflow or by the local supervisor."""
