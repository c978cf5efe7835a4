"""The logic of each verb, free of argparse."""
