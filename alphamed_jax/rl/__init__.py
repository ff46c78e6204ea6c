"""Group relative policy optimisation: rollouts, the rule-based reward, advantages, loss, update."""
