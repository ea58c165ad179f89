"""The peer of compare_myosuite.py: MyoSuite 3 with PPO of stable-baselines3. Runs in an environment of its own.

Measures environment steps (control steps) per second with learning included: whole cycles of collecting and updating,
after one cycle that warms up. The last line of the output is one JSON object: `steps_per_s`, `learning_share` (updates'
part of the time), the settings and the versions. `check` instead of settings says the versions only.

    python peer_myosuite.py --vector subproc --environments 4 --rollout 8192 --batch 1024 --epochs 4 --seconds 30
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import warnings

TASK = "myoHandPoseRandom-v0"
"""all finger joints of the 39-muscle hand brought to random postures: the task of MyoSuite's nearest to following"""


def settings() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say the versions")
    parser.add_argument("--vector", choices=("dummy", "subproc"), default="subproc", help="who steps the environments")
    parser.add_argument("--environments", type=int, default=4, help="environments; processes too with subproc")
    parser.add_argument("--rollout", type=int, default=8192, help="environment steps per update, all environments")
    parser.add_argument("--batch", type=int, default=64, help="minibatch, steps")
    parser.add_argument("--epochs", type=int, default=10, help="passes over each rollout")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--network", type=int, nargs="+", default=[256, 128], help="hidden units of actor and critic")
    parser.add_argument("--control-dt", type=float, default=0.02, help="control step that is expected, s")
    parser.add_argument("--seconds", type=float, default=30.0, help="time measured at least, s")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def versions() -> dict[str, str]:
    """What is installed here."""
    import mujoco
    import myosuite
    import stable_baselines3
    import torch

    return {
        "myosuite": myosuite.__version__,
        "stable_baselines3": stable_baselines3.__version__,
        "torch": torch.__version__,
        "mujoco": mujoco.__version__,
        "python": platform.python_version(),
    }


def make():  # type: ignore[no-untyped-def]
    """One environment of the task."""
    warnings.filterwarnings("ignore")
    from myosuite.utils import gym

    return gym.make(TASK)


def measure(asked: argparse.Namespace) -> dict[str, object]:
    """Steps per second of learning with these settings."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

    torch.set_num_threads(asked.threads)
    vector = {"dummy": DummyVecEnv, "subproc": SubprocVecEnv}[asked.vector]
    environments = make_vec_env(make, asked.environments, seed=asked.seed, vec_env_cls=vector)
    learner = PPO(
        "MlpPolicy",
        environments,
        n_steps=asked.rollout // asked.environments,
        batch_size=asked.batch,
        n_epochs=asked.epochs,
        policy_kwargs={"net_arch": {"pi": asked.network, "vf": asked.network}},
        seed=asked.seed,
        device="cpu",
    )
    updating = 0.0
    update = learner.train

    def timed_update() -> None:
        nonlocal updating
        begin = time.perf_counter()
        update()
        updating += time.perf_counter() - begin

    learner.train = timed_update
    cycle = asked.rollout // asked.environments * asked.environments
    learner.learn(cycle)  # starts the processes, fills the caches
    updating, done, begin = 0.0, learner.num_timesteps, time.perf_counter()
    while (took := time.perf_counter() - begin) < asked.seconds:
        learner.learn(cycle, reset_num_timesteps=False)
    steps = learner.num_timesteps - done
    environments.close()
    return {"steps_per_s": steps / took, "learning_share": updating / took, "steps": steps, "seconds": took}


def main() -> None:
    asked = settings()
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(asked.threads)  # inherited by the processes
    if asked.check:
        print(json.dumps({"versions": versions()}))
        return
    one = make().unwrapped
    model = one.mj_model if hasattr(one, "mj_model") else one.sim.model
    if abs(one.dt - asked.control_dt) > 1e-9:
        sys.exit(f"{TASK} steps every {one.dt} s, not every {asked.control_dt} s: the rates cannot be compared")
    task = {
        "task": TASK,
        "control_dt": one.dt,
        "physics_dt": model.opt.timestep,
        "muscles": int(model.nu),
        "joints": int(model.nv),
    }
    used = {name: getattr(asked, name) for name in ("vector", "environments", "rollout", "batch", "epochs", "threads")}
    measured = measure(asked)
    print(json.dumps({**measured, **used, "network": asked.network, **task, "versions": versions()}))


if __name__ == "__main__":
    main()
