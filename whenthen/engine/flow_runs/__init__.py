"""flow_runs"""
